"""Owns what the fake knows of one call while it answers it."""

import threading

from m2ib_client._errors import CallCancelledError


class Visit:
    """One call while it is being answered."""

    def __init__(self) -> None:
        """Begin unanswered."""
        self.ended = threading.Event()
        self.is_answered = False

    def work(self, seconds: float) -> None:
        """Take so much time, but no longer than the caller waits."""
        if self.ended.wait(seconds):
            raise CallCancelledError("the caller left")
