"""Makes pairs for the tests of many of them, and reads what the fake got."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from m2ib_client import Pair, UnavailableError
from m2ib_client.testing import FakeService

TEXT = "an opacity in the left lung"
SOON = UnavailableError("restarting", retry_after_seconds=0.01)


def films(count: int) -> list[Any]:
    chance = np.random.default_rng(3)
    return [chance.integers(0, 255, (12, 16), dtype=np.uint8) for _ in range(count)]


def numbered(count: int, **options: Any) -> Iterator[Pair]:
    return (Pair(film, f"text {index}", str(index), options) for index, film in enumerate(films(count)))  # type: ignore[arg-type]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def sources(fake: FakeService) -> list[str]:
    """How each pair's image was sent, in the order of arrival."""
    requests = [call.request for call in fake.calls if call.method == "ExplainBatch"]
    return [str(request.request.image.WhichOneof("source")) for request in requests]  # type: ignore[attr-defined]


def uploads(fake: FakeService) -> int:
    return sum(call.method == "UploadImage" for call in fake.calls)


def client_threads() -> int:
    """The threads of this process but those that the fake's own pools keep."""
    return sum(not thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())
