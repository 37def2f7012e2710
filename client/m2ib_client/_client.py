"""Owns the synchronous client: a channel, a timeout for every call and the calls. The codec does the rest."""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, Unpack

import grpc

from m2ib.v1 import attribution_pb2, attribution_pb2_grpc, model_repository_pb2_grpc
from m2ib_client import _affinity, _answer, _channel, _image, _model_answer, _request, _verification
from m2ib_client._errors import ClosedError, IncompatibleServerError, NotFoundError
from m2ib_client._handle import ImageHandle
from m2ib_client._local import DEFAULT_BOOT_TIMEOUT_SECONDS, LocalServer
from m2ib_client._many.pair import ManyResult, PairSource, ProgressOption
from m2ib_client._many.run import DEFAULT_AHEAD, Terms
from m2ib_client._many.threaded import ThreadedRun
from m2ib_client._models import Model
from m2ib_client._options import ExplainOptions, ImageSource, ScoreOptions
from m2ib_client._recorded import ResultSource, options_for, read_result
from m2ib_client._repository import ModelRepository
from m2ib_client._results import Explanation, Progress, Scores
from m2ib_client._secure import TLS, TokenSource, checked_security
from m2ib_client._status import translated
from m2ib_client._trace import traced
from m2ib_client._uploads import Placed, Uploads, is_forgotten


class Client:
    """Speaks to an attribution server; safe to share between threads.

    Without `tls` the channel is plaintext: keep that on this machine or on a network that is trusted with the images.

        with Client("127.0.0.1:50051") as client:
            explanation = client.explain("chest.png", "a nodule in the left lung")
            explanation.overlay().save("overlay.png")

    Every call raises `M2IBError`, by the tree in `m2ib_client`'s exceptions.
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
        """Prepare a channel to `HOST:PORT`; nothing connects before the first call.

        `timeout` is that of calls that name none, in seconds from the call to its whole answer; None means
        none. `max_message_bytes` is the largest message sent or taken, up to 1 GiB; the server has a limit of
        its own (`m2ib-server serve --max-message-mebibytes`).

        `tls` encrypts: True trusts the public authorities, a `TLS` says whom to trust and may show a certificate.
        `token` says who calls, as a text or as a function that returns a fresh one for each call; it is sent
        encrypted or on this machine only.

        Raises:
            InvalidRequestError: the address, the timeout or the limit cannot be meant, a file of `tls` cannot be
                used, or the token would go over a network in plaintext.
        """
        self._timeout = _channel.checked_timeout(timeout)
        self._max_message_bytes = _channel.checked_message_bytes(max_message_bytes)
        security = checked_security(_channel.checked_address(address), tls, token)
        options = [*_channel.channel_options(max_message_bytes), *security.options]
        if security.credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, security.credentials, options)
        self._carried = traced(security.bearing(self._channel))  # the channel, with what every call carries along
        self._stub: attribution_pb2_grpc.AttributionServiceStub
        self._stub = attribution_pb2_grpc.AttributionServiceStub(self._carried)
        self._uploads = Uploads(self._send_image)
        self._server: LocalServer | None = None
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
        """Start a private server over a folder of model packages and return a client that ends it on `close`.

        The server listens on this machine only and never outlives this process. `device` is "cpu", "cuda" or
        "tensorrt"; `boot_timeout` is the time the server has to load its models, in seconds.

        Raises:
            LocalServerError: the server did not start.
            MissingPackageError: m2ib-server is not installed.
        """
        _channel.checked_timeout(timeout)  # before a server runs that nobody would end
        limit = _channel.checked_message_bytes(max_message_bytes)
        server = LocalServer(models=models, device=device, boot_timeout=boot_timeout, max_message_bytes=limit)
        client = cls(server.start(), timeout=timeout, max_message_bytes=limit)
        client._server = server
        return client

    def explain(
        self,
        image: ImageSource,
        text: str,
        *,
        timeout: float | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """Explain why the model matches the image and the text; `timeout` replaces the client's."""
        request = _request.explain_request(image, text, max_message_bytes=self._max_message_bytes, **options)
        left = _channel.TimeLeft(self._seconds(timeout))
        affinity = _affinity.affinity([image], [request.image])

        def call() -> attribution_pb2.ExplainResponse:
            with translated():
                return self._open_stub().Explain(request, timeout=left.seconds(), metadata=affinity)

        response = self._uploads.call(_image.placed([image], [request.image]), left, call)
        return _answer.read_explanation(response.explanation)

    def explain_stream(
        self,
        image: ImageSource,
        text: str,
        *,
        partial_maps: bool = False,
        timeout: float | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Iterator[Progress | Explanation]:
        """Explain as `explain` does, and tell of the steps meanwhile; the explanation comes last.

        The call begins with the first `next`. Leaving the loop early and dropping the iterator cancels it on
        the server too.
        """
        pair = _request.explain_request(image, text, max_message_bytes=self._max_message_bytes, **options)
        request = _request.stream_request(pair, partial_maps=partial_maps)
        affinity = _affinity.affinity([image], [pair.image])
        placed = _image.placed([image], [request.request.image])
        return self._events(request, placed, affinity, self._seconds(timeout))

    def explain_many(
        self,
        pairs: Iterable[PairSource],
        *,
        ordered: bool = True,
        progress: ProgressOption = None,
        return_errors: bool = True,
        ahead: int = DEFAULT_AHEAD,
        timeout: float | None = None,
        total_timeout: float | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Generator[ManyResult, None, None]:
        """Explain many pairs over one stream: `(image, text)`, `(id, image, text)` or `Pair`s with own options.

        The pairs are read one by one, in the caller's thread, while results are asked for, at most `ahead` of them
        beyond the last result given. Results come in the pairs' order, or as they finish where `ordered` is False.
        A pair that fails, here or on the server, gives a result with its error, and the rest goes on; with
        `return_errors=False` it is raised instead. What a busy server refuses is sent again after the pause that it
        asks for, and what a broken stream left without an answer over a new one, both a bounded number of times. An
        image that comes again is uploaded and from then on sent by its handle, or within each request while the
        server has no room for it.

        `progress` is True for a bar on the standard error or a function that takes `ManyProgress`. `timeout` is the
        longest silence of the server while pairs are under way, `total_timeout` the time for all of them, in
        seconds. Leaving the loop early and dropping or closing the iterator cancels what is under way.

        Raises:
            DeadlineError: from the iterator: no answer came within `timeout`, or the rest not within `total_timeout`.
            TransientError: from the iterator: the stream broke too often in a row.
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
        return ThreadedRun(terms, pairs, self._open_stub, self._uploads).results()

    def score(
        self,
        images: ImageSource | Sequence[ImageSource],
        texts: str | Sequence[str],
        *,
        timeout: float | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Scores:
        """Return the similarity of every image with every text; one of either may come without a list."""
        request = _request.score_request(images, texts, max_message_bytes=self._max_message_bytes, **options)
        left = _channel.TimeLeft(self._seconds(timeout))
        affinity = _affinity.affinity(_request.listed(images), request.images)

        def call() -> attribution_pb2.ScoreResponse:
            with translated():
                return self._open_stub().Score(request, timeout=left.seconds(), metadata=affinity)

        response = self._uploads.call(_image.placed(_request.listed(images), request.images), left, call)
        return _answer.read_scores(response)

    def verify(
        self,
        result: ResultSource,
        image: ImageSource,
        text: str,
        *,
        tolerance: float = _verification.DEFAULT_TOLERANCE,
        timeout: float | None = None,
    ) -> _verification.Verification:
        """Ask for a kept result once more, as its provenance says, and compare it with what comes out now.

        The version of the model whose digest is the result's is asked by its name and version, whatever the bare name
        leads to, and must be the one that answers. The settings, the seed, the fit, the frame, the window, the sides
        and whether an over-long text is cut are the result's own. `tolerance` is the largest difference of bits that
        passes, relative to the largest of those kept. `timeout` is that of each of the two calls.

        Raises:
            InvalidRequestError: `result` is none, or a partial one.
            NotFoundError: the server has not the model package that the result came from, or another one answered;
                the text names its digest.
        """
        allowed, recorded = _verification.checked_tolerance(tolerance), read_result(result)
        options = options_for(recorded, self.models(timeout=timeout))
        replayed = self.explain(image, text, timeout=timeout, **options)
        return _verification.compare(recorded, replayed, text, tolerance=allowed)

    def upload(self, image: ImageSource, *, timeout: float | None = None) -> ImageHandle:
        """Send an image once, for many calls: they take the handle in its place.

        The server keeps an image for `Limits.image_time_to_live_seconds` after its last use. A call with the
        handle of one that it no longer has sends the image again by itself.

        Raises:
            InvalidRequestError: the image is a tensor, which has no file's form, or cannot be sent at all.
        """
        handle = _image.uploadable(image)
        self._uploads.name(handle, _channel.TimeLeft(self._seconds(timeout)))
        return handle

    def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """Return the loaded models, in the order of their names."""
        with translated():
            response = self._open_stub().ListModels(attribution_pb2.ListModelsRequest(), timeout=self._seconds(timeout))
        return _model_answer.read_models(response)

    def model(self, name: str = "", *, timeout: float | None = None) -> Model:
        """Return one model; an empty name means the only one loaded."""
        with translated():
            response = self._open_stub().GetModel(_request.model_request(name), timeout=self._seconds(timeout))
        return _model_answer.read_model(response.model)

    @property
    def repository(self) -> ModelRepository:
        """What operators use: it loads, unloads and swaps the server's models."""
        return ModelRepository(self._open_repository, self._seconds)

    def close(self) -> None:
        """Cancel what runs, close the channel, end the private server. May be called twice."""
        self._is_closed = True
        self._channel.close()
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def _events(
        self,
        request: attribution_pb2.ExplainStreamRequest,
        placed: Placed,
        affinity: _affinity.Metadata,
        timeout: float | None,
    ) -> Iterator[Progress | Explanation]:
        left = _channel.TimeLeft(timeout)
        for is_last_try in (not placed, True):
            self._uploads.fill(placed, left)
            try:
                yield from self._streamed(request, affinity, left)
                return
            except NotFoundError as error:
                if is_last_try or not is_forgotten(error):
                    raise
            self._uploads.names.forget_placed(placed)

    def _streamed(
        self, request: attribution_pb2.ExplainStreamRequest, affinity: _affinity.Metadata, left: _channel.TimeLeft
    ) -> Iterator[Progress | Explanation]:
        with translated():
            call = self._open_stub().ExplainStream(request, timeout=left.seconds(), metadata=affinity)
            try:
                for message in call:
                    event = _answer.read_event(message)
                    yield event
                    if isinstance(event, Explanation):
                        return
            finally:
                call.cancel()
        raise IncompatibleServerError("the stream ended without an explanation")

    def _send_image(self, image: ImageHandle, timeout: float | None) -> str:
        with translated():
            parts, affinity = _request.upload_requests(image), _affinity.upload_affinity(image)
            return self._open_stub().UploadImage(parts, timeout=timeout, metadata=affinity).handle

    def _open_stub(self) -> attribution_pb2_grpc.AttributionServiceStub:
        if self._is_closed:
            raise ClosedError("this client is closed")
        return self._stub

    def _open_repository(self) -> model_repository_pb2_grpc.ModelRepositoryStub:
        self._open_stub()
        stub: model_repository_pb2_grpc.ModelRepositoryStub
        stub = model_repository_pb2_grpc.ModelRepositoryStub(self._carried)
        return stub

    def _seconds(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else _channel.checked_timeout(timeout)
