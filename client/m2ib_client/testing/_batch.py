"""Answers the pairs of one fake batch side by side, so that answers overtake each other as a true server's do."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import grpc

from m2ib.v1 import attribution_pb2
from m2ib_client._errors import M2IBError
from m2ib_client.testing._failure import status_of

Request: TypeAlias = attribution_pb2.ExplainBatchRequest
Response: TypeAlias = attribution_pb2.ExplainBatchResponse
POLL_SECONDS = 0.05


def batch_answers(
    requests: Iterator[Request],
    explain: Callable[[attribution_pb2.ExplainRequest], attribution_pb2.Explanation],
    in_flight: int,
) -> Iterator[Response]:
    """Yield the answers as they come; reads the next request when fewer than `in_flight` are unanswered."""
    answers: queue.SimpleQueue[Response | int] = queue.SimpleQueue()
    room = threading.Semaphore(in_flight)
    is_left = threading.Event()
    pool = ThreadPoolExecutor(in_flight + 1)
    pool.submit(_read, requests, lambda request: pool.submit(_answer, request, explain), answers, room, is_left)
    try:
        yield from _in_order_of_arrival(answers, room)
    finally:
        is_left.set()
        pool.shutdown(wait=False)  # the reader waits for the caller, who is yet to hear that the call ended


def _read(
    requests: Iterator[Request],
    begin: Callable[[Request], "Future[Response]"],
    answers: "queue.SimpleQueue[Response | int]",
    room: threading.Semaphore,
    is_left: threading.Event,
) -> None:
    """Begin the requests as there is room, and tell at their end how many they were."""
    count = 0
    try:
        while not is_left.is_set():
            if not room.acquire(timeout=POLL_SECONDS):
                continue
            begin(next(requests)).add_done_callback(lambda future: answers.put(future.result()))
            count += 1
    except (StopIteration, RuntimeError, grpc.RpcError):  # the end, or the caller or the service is gone
        answers.put(count)


def _in_order_of_arrival(answers: "queue.SimpleQueue[Response | int]", room: threading.Semaphore) -> Iterator[Response]:
    expected: int | None = None
    given = 0
    while expected is None or given < expected:
        answer = answers.get()
        if isinstance(answer, int):
            expected = answer
            continue
        yield answer
        given += 1
        room.release()


def _answer(
    request: Request, explain: Callable[[attribution_pb2.ExplainRequest], attribution_pb2.Explanation]
) -> Response:
    try:
        return Response(id=request.id, explanation=explain(request.request))
    except M2IBError as error:
        status = status_of(error)
        return Response(
            id=request.id,
            status=attribution_pb2.RequestStatus(code=status.code, message=status.message, details=status.details),
        )
