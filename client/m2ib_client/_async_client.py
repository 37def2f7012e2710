"""Owns the asyncio client: a channel, a timeout for every call and the calls. The codec does the rest."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self, Unpack

import grpc.aio

from m2ib.v1 import attribution_pb2, attribution_pb2_grpc
from m2ib_client import _answer, _channel, _model_answer, _request
from m2ib_client._errors import ClosedError, IncompatibleServerError
from m2ib_client._local import DEFAULT_BOOT_TIMEOUT_SECONDS, LocalServer
from m2ib_client._models import Model
from m2ib_client._options import ExplainOptions, ImageSource, ScoreOptions
from m2ib_client._results import Explanation, Progress, Scores
from m2ib_client._status import translated


class AsyncClient:
    """Speaks to an attribution server from one event loop; `Client` in asyncio's terms.

    The channel is plaintext: keep it on this machine or on a network that is trusted with the images.

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
    ) -> None:
        """Keep the address; raises and means what `Client` raises and means."""
        self._address = _channel.checked_address(address)
        self._timeout = _channel.checked_timeout(timeout)
        self._max_message_bytes = _channel.checked_message_bytes(max_message_bytes)
        self._channel: grpc.aio.Channel | None = None
        self._server: LocalServer | None = None
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
        stub = await self._open_stub()
        with translated():
            response = await stub.Explain(request, timeout=self._seconds(timeout))
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
        stub = await self._open_stub()
        with translated():
            call = stub.ExplainStream(request, timeout=self._seconds(timeout))
            try:
                async for message in call:
                    event = _answer.read_event(message)
                    yield event
                    if isinstance(event, Explanation):
                        return
            finally:
                call.cancel()
        raise IncompatibleServerError("the stream ended without an explanation")

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
        stub = await self._open_stub()
        with translated():
            response = await stub.Score(request, timeout=self._seconds(timeout))
        return _answer.read_scores(response)

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

    async def _open_stub(self) -> "attribution_pb2_grpc.AttributionServiceAsyncStub":
        """Return a stub on the channel, which is made on the loop that first needs it."""
        if self._is_closed:
            raise ClosedError("this client is closed")
        async with self._opening:
            if self._channel is None:
                self._channel = await self._connect()
            return attribution_pb2_grpc.AttributionServiceStub(self._channel)

    async def _connect(self) -> grpc.aio.Channel:
        if self._server is not None:
            self._address = await self._server.start_async()
        return grpc.aio.insecure_channel(self._address, _channel.channel_options(self._max_message_bytes))

    def _seconds(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else _channel.checked_timeout(timeout)
