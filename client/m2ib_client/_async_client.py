"""Owns the asyncio client: a channel, a timeout for every call and the calls. The codec does the rest."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, Unpack

import grpc.aio

from m2ib.v1 import attribution_pb2, attribution_pb2_grpc, model_repository_pb2_grpc
from m2ib_client import _affinity, _answer, _channel, _image, _model_answer, _request, _verification
from m2ib_client._ending import translated_stream
from m2ib_client._errors import ClosedError, IncompatibleServerError, NotFoundError
from m2ib_client._handle import ImageHandle
from m2ib_client._local import DEFAULT_BOOT_TIMEOUT_SECONDS, LocalServer
from m2ib_client._many.looped import LoopedRun
from m2ib_client._many.pair import ManyResult, PairSource, ProgressOption
from m2ib_client._many.run import DEFAULT_AHEAD, Terms
from m2ib_client._models import Model
from m2ib_client._options import ExplainOptions, ImageSource, ScoreOptions
from m2ib_client._recorded import ResultSource, options_for, read_result
from m2ib_client._repository import AsyncModelRepository
from m2ib_client._results import Explanation, Progress, Scores
from m2ib_client._secure import TLS, TokenSource, checked_security
from m2ib_client._status import translated
from m2ib_client._trace import traced
from m2ib_client._uploads import AsyncUploads, Placed, is_forgotten


class AsyncClient:
    """Speaks to an attribution server from one event loop; `Client` in asyncio's terms.

    Without `tls` the channel is plaintext: keep that on this machine or on a network that is trusted with the images.

        async with AsyncClient("127.0.0.1:50051") as client:
            explanation = await client.explain("chest.png", "a nodule in the left lung")

    Every call raises `M2IBError`, by the tree in `m2ib_client`'s exceptions; cancelling the awaiting task
    cancels the call on the server too. Images are read and encoded in a thread, so the loop stays free.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = _channel.DEFAULT_TIMEOUT_SECONDS,
        max_message_bytes: int = _channel.MAX_MESSAGE_BYTES,
        tls: TLS | bool = False,
        token: TokenSource | None = None,
    ) -> None:
        """Keep the address; raises and means what `Client` raises and means."""
        self._address = _channel.checked_address(address)
        self._timeout = _channel.checked_timeout(timeout)
        self._max_message_bytes = _channel.checked_message_bytes(max_message_bytes)
        self._security = checked_security(self._address, tls, token)
        self._channel: grpc.aio.Channel | None = None
        self._server: LocalServer | None = None
        self._uploads = AsyncUploads(self._send_image)
        self._opening = asyncio.Lock()
        self._is_closed = False

    @classmethod
    def local(
        cls,
        *,
        models: str | os.PathLike[str],
        device: str = "cpu",
        timeout: float | None = _channel.DEFAULT_TIMEOUT_SECONDS,
        boot_timeout: float = DEFAULT_BOOT_TIMEOUT_SECONDS,
        max_message_bytes: int = _channel.MAX_MESSAGE_BYTES,
    ) -> Self:
        """Return a client with a private server, as `Client.local`; the server starts with `async with`.

        Raises:
            LocalServerError: the server did not start; raised where it starts.
            MissingPackageError: m2ib-server is not installed; raised where it starts.
        """
        client = cls("127.0.0.1:0", timeout=timeout, max_message_bytes=max_message_bytes)
        client._server = LocalServer(
            models=models, device=device, boot_timeout=boot_timeout, max_message_bytes=max_message_bytes
        )
        return client

    async def explain(
        self,
        image: ImageSource,
        text: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the server keeps it too
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Explain why the model matches the image and the text; `timeout` replaces the client's."""
        request = await asyncio.to_thread(
            _request.explain_request, image, text, max_message_bytes=self._max_message_bytes, **options
        )
        left = _channel.TimeLeft(self._seconds(timeout))
        affinity = await asyncio.to_thread(_affinity.affinity, [image], [request.image])

        async def call() -> attribution_pb2.ExplainResponse:
            stub = await self._open_stub()
            with translated():
                return await stub.Explain(request, timeout=left.seconds(), metadata=affinity)

        response = await self._uploads.call(_image.placed([image], [request.image]), left, call)
        return _answer.read_explanation(response.explanation)

    async def explain_stream(
        self,
        image: ImageSource,
        text: str,
        *,
        partial_maps: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - the server keeps it too
        **options: Unpack[ExplainOptions],
    ) -> AsyncGenerator[Progress | Explanation, None]:
        """Explain as `explain` does, and tell of the steps meanwhile; the explanation comes last.

        The call begins with the first step. Whoever leaves the loop early closes the generator (`aclose`, or
        `contextlib.aclosing`), which cancels the call on the server too.
        """
        pair = await asyncio.to_thread(
            _request.explain_request, image, text, max_message_bytes=self._max_message_bytes, **options
        )
        request = _request.stream_request(pair, partial_maps=partial_maps)
        left = _channel.TimeLeft(self._seconds(timeout))
        affinity = await asyncio.to_thread(_affinity.affinity, [image], [pair.image])
        placed = _image.placed([image], [request.request.image])
        async with aclosing(self._events(request, placed, affinity, left)) as events:
            async for event in events:
                yield event

    def explain_many(
        self,
        pairs: Iterable[PairSource] | AsyncIterable[PairSource],
        *,
        ordered: bool = True,
        progress: ProgressOption = None,
        return_errors: bool = True,
        ahead: int = DEFAULT_AHEAD,
        timeout: float | None = None,
        total_timeout: float | None = None,
        **options: Unpack[ExplainOptions],
    ) -> AsyncGenerator[ManyResult, None]:
        """Explain many pairs over one stream, as `Client.explain_many`; the pairs may come asynchronously too.

        One task reads the pairs; those of a plain iterable are read on the loop, so one that blocks belongs into a
        thread. Whoever leaves the loop early closes the generator (`aclose`, or `contextlib.aclosing`), which
        cancels what is under way.
        """
        terms = Terms(
            options=options,
            ordered=ordered,
            return_errors=return_errors,
            progress=progress,
            ahead=ahead,
            timeout=self._seconds(timeout),
            total_timeout=total_timeout,
            max_message_bytes=self._max_message_bytes,
        )
        return LoopedRun(terms, pairs, self._open_stub, self._uploads).results()

    async def score(
        self,
        images: ImageSource | Sequence[ImageSource],
        texts: str | Sequence[str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the server keeps it too
        **options: Unpack[ScoreOptions],
    ) -> Scores:
        """Return the similarity of every image with every text; one of either may come without a list."""
        request = await asyncio.to_thread(
            _request.score_request, images, texts, max_message_bytes=self._max_message_bytes, **options
        )
        left = _channel.TimeLeft(self._seconds(timeout))
        affinity = await asyncio.to_thread(_affinity.affinity, _request.listed(images), request.images)

        async def call() -> attribution_pb2.ScoreResponse:
            stub = await self._open_stub()
            with translated():
                return await stub.Score(request, timeout=left.seconds(), metadata=affinity)

        response = await self._uploads.call(_image.placed(_request.listed(images), request.images), left, call)
        return _answer.read_scores(response)

    async def verify(
        self,
        result: ResultSource,
        image: ImageSource,
        text: str,
        *,
        tolerance: float = _verification.DEFAULT_TOLERANCE,
        timeout: float | None = None,  # noqa: ASYNC109 - the server keeps it too
    ) -> _verification.Verification:
        """Ask for a kept result once more and compare, as `Client.verify`."""
        allowed, recorded = _verification.checked_tolerance(tolerance), read_result(result)
        options = options_for(recorded, await self.models(timeout=timeout))
        replayed = await self.explain(image, text, timeout=timeout, **options)
        return _verification.compare(recorded, replayed, text, tolerance=allowed)

    async def upload(self, image: ImageSource, *, timeout: float | None = None) -> ImageHandle:  # noqa: ASYNC109 - the server keeps it too
        """Send an image once, for many calls, as `Client.upload`."""
        handle = await asyncio.to_thread(_image.uploadable, image)
        await self._uploads.name(handle, _channel.TimeLeft(self._seconds(timeout)))
        return handle

    async def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:  # noqa: ASYNC109 - the server keeps it too
        """Return the loaded models, in the order of their names."""
        stub = await self._open_stub()
        with translated():
            response = await stub.ListModels(attribution_pb2.ListModelsRequest(), timeout=self._seconds(timeout))
        return _model_answer.read_models(response)

    async def model(self, name: str = "", *, timeout: float | None = None) -> Model:  # noqa: ASYNC109 - the server keeps it too
        """Return one model; an empty name means the only one loaded."""
        stub = await self._open_stub()
        with translated():
            response = await stub.GetModel(_request.model_request(name), timeout=self._seconds(timeout))
        return _model_answer.read_model(response.model)

    @property
    def repository(self) -> AsyncModelRepository:
        """What operators use: it loads, unloads and swaps the server's models."""
        return AsyncModelRepository(self._open_repository, self._seconds)

    async def close(self) -> None:
        """Cancel what runs, close the channel, end the private server. May be called twice."""
        self._is_closed = True
        async with self._opening:
            if self._channel is not None:
                await self._channel.close()
            if self._server is not None:
                await asyncio.to_thread(self._server.stop)

    async def __aenter__(self) -> Self:
        """Start the private server if there is one, and return the client itself."""
        await self._open_stub()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    async def _events(
        self,
        request: attribution_pb2.ExplainStreamRequest,
        placed: Placed,
        affinity: _affinity.Metadata,
        left: _channel.TimeLeft,
    ) -> AsyncGenerator[Progress | Explanation, None]:
        """Yield the events of a stream, begun once more if the server has let go of the image meanwhile."""
        for is_last_try in (not placed, True):
            await self._uploads.fill(placed, left)
            try:
                async with aclosing(self._streamed(request, affinity, left)) as events:
                    async for event in events:
                        yield event
                return
            except NotFoundError as error:
                if is_last_try or not is_forgotten(error):
                    raise
            self._uploads.names.forget_placed(placed)

    async def _streamed(
        self, request: attribution_pb2.ExplainStreamRequest, affinity: _affinity.Metadata, left: _channel.TimeLeft
    ) -> AsyncGenerator[Progress | Explanation, None]:
        stub = await self._open_stub()
        with translated():
            call = stub.ExplainStream(request, timeout=left.seconds(), metadata=affinity)
            try:
                async for message in call:
                    event = _answer.read_event(message)
                    yield event
                    if isinstance(event, Explanation):
                        return
            finally:
                call.cancel()
        raise IncompatibleServerError("the stream ended without an explanation")

    async def _send_image(self, image: ImageHandle, timeout: float | None) -> str:  # noqa: ASYNC109 - the server keeps it too
        stub = await self._open_stub()
        call = stub.UploadImage(
            _request.upload_requests(image), timeout=timeout, metadata=_affinity.upload_affinity(image)
        )
        with translated_stream(call):
            return (await call).handle

    async def _open_stub(self) -> "attribution_pb2_grpc.AttributionServiceAsyncStub":
        channel = traced(self._security.bearing(await self._open_channel()))
        stub: attribution_pb2_grpc.AttributionServiceAsyncStub = attribution_pb2_grpc.AttributionServiceStub(channel)
        return stub

    async def _open_repository(self) -> "model_repository_pb2_grpc.ModelRepositoryAsyncStub":
        channel = traced(self._security.bearing(await self._open_channel()))
        stub: model_repository_pb2_grpc.ModelRepositoryAsyncStub
        stub = model_repository_pb2_grpc.ModelRepositoryStub(channel)
        return stub

    async def _open_channel(self) -> grpc.aio.Channel:
        """Return the channel, which is made on the loop that first needs it."""
        if self._is_closed:
            raise ClosedError("this client is closed")
        async with self._opening:
            if self._channel is None:
                self._channel = await self._connect()
            return self._channel

    async def _connect(self) -> grpc.aio.Channel:
        if self._server is not None:
            self._address = await self._server.start_async()
        options = [*_channel.channel_options(self._max_message_bytes), *self._security.options]
        if self._security.credentials is None:
            return grpc.aio.insecure_channel(self._address, options)
        return grpc.aio.secure_channel(self._address, self._security.credentials, options)

    def _seconds(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else _channel.checked_timeout(timeout)
