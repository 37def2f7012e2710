"""Does work that may hang on a thread of its own, which neither the event loop nor the process waits for at its end."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Outcome = TypeVar("Outcome")


async def apart(work: Callable[[], Outcome], name: str) -> Outcome:
    """Do work that blocks on a daemon thread called `name`; whoever stops waiting leaves it behind.

    The loop's default executor is for no such work: `asyncio.run` waits for it without an end.

    Raises:
        Exception: whatever the work raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Outcome] = loop.create_future()

    def settle(settled: Callable[[], None]) -> None:
        if not done.done():  # else left behind: nobody asks any more
            settled()

    def run() -> None:
        settled: Callable[[], None]
        try:
            outcome = work()
        except Exception as error:
            fault = error  # the name of an `except` ends with it
            settled = lambda: done.set_exception(fault)  # noqa: E731 - beside the other one
        else:
            settled = lambda: done.set_result(outcome)  # noqa: E731
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, settled)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
