"""Owns what tells the server to stop: signals, the end of standard input, whatever else gives it a reason."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from m2ib_server.apart import apart
from m2ib_server.telemetry import log_event

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SIGNALLED = 128  # the exit code of what a signal has ended, as shells count it: this and the signal's number


class Stop:
    """The one reason to stop: the first that is given. One event loop's alone."""

    def __init__(self) -> None:
        """Begin without a reason; made on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._reason: asyncio.Future[str] = self._loop.create_future()

    def give(self, reason: str) -> None:
        """Give a reason."""
        if not self._reason.done():
            self._reason.set_result(reason)

    @property
    def is_given(self) -> bool:
        """Whether there is a reason."""
        return self._reason.done()

    async def reason(self) -> str:
        """Wait for a reason and name it."""
        return await asyncio.shield(self._reason)

    async def unless_given(self, work: Callable[[], None]) -> None:
        """Do work that blocks on a thread of its own; leave it behind once there is a reason to stop.

        Raises:
            Exception: whatever the work raises.
        """
        done = asyncio.ensure_future(apart(work, "m2ib-load"))
        either: list[asyncio.Future[Any]] = [done, self._reason]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            done.cancel()
            return
        await done

    @contextmanager
    def on_signals(self, *, is_stdin_one: bool = False) -> Iterator[None]:
        """Take the first SIGTERM or SIGINT for a reason and end the process at the second one.

        is_stdin_one: whether the end of standard input is a reason as well.
        """
        if is_stdin_one:
            self._on_end_of_stdin()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self._on_first, number)
        try:
            yield
        finally:
            for number in SIGNALS:
                self._loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    def _on_end_of_stdin(self) -> None:
        def read() -> None:
            sys.stdin.buffer.read()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self.give, "standard input ended")

        threading.Thread(target=read, name="m2ib-stdin", daemon=True).start()

    def _on_first(self, number: signal.Signals) -> None:
        for each in SIGNALS:
            self._loop.remove_signal_handler(each)
            signal.signal(each, _end_at_once)  # not through the loop, which may be what hangs
        self.give(number.name)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    log_event("ended at once", reason=signal.Signals(number).name)
    os._exit(SIGNALLED + number)
