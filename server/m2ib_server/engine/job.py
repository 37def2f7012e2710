"""Owns one job: a method under way for one request, from admission to its one outcome."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from typing import Any, Generic

from torch import Tensor

from m2ib_server.methods import Evaluation, Method, StepDone
from m2ib_server.methods.evaluation import Outcome
from m2ib_server.package import Role


class Stage(StrEnum):
    """What a job spends its time on."""

    QUEUE = "queue"
    ENCODE = "encode"
    OPTIMISE_IMAGE = "optimise_image"
    OPTIMISE_TEXT = "optimise_text"


STAGE_BY_ROLE = {
    Role.VISION_HEAD: Stage.ENCODE,
    Role.VISION_TAIL: Stage.ENCODE,
    Role.VISION_TAIL_GRAD: Stage.OPTIMISE_IMAGE,
    Role.TEXT_HEAD: Stage.ENCODE,
    Role.TEXT_TAIL: Stage.ENCODE,
    Role.TEXT_TAIL_GRAD: Stage.OPTIMISE_TEXT,
}


class Job(Generic[Outcome]):
    """A method under way. Everything but `reply`, `cancel` and the constructor belongs to the engine's thread."""

    def __init__(
        self,
        method: Method[Outcome],
        *,
        model: str,
        on_step: Callable[[StepDone], None] | None = None,
        deadline_ns: int | None = None,
    ) -> None:
        """Prepare a job.

        Args:
            method: not yet started.
            model: the digest of the model whose graphs it runs on.
            on_step: called on the engine's thread after each step; must return at once and never raise.
            deadline_ns: on the monotonic clock; the job expires at the first step after it.
        """
        self.model = model
        self.reply: Future[Outcome] = Future()
        self.reply.set_running_or_notify_cancel()  # only the engine ends it; a caller that leaves says so by cancel()
        self.deadline_ns = deadline_ns
        self.pending: tuple[Evaluation, ...] = ()
        self.cached_roles: set[Role] = set()
        self.seconds: dict[Stage, float] = dict.fromkeys(Stage, 0.0)
        self._method = method
        self._on_step = on_step
        self._stage = Stage.QUEUE
        self._marked_ns = time.monotonic_ns()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the engine to drop the job at its next step. May be called from any thread, any number of times."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller has left."""
        return self._cancelled.is_set()

    def is_expired(self, now_ns: int) -> bool:
        """Whether the deadline has passed."""
        return self.deadline_ns is not None and now_ns >= self.deadline_ns

    def advance(self, answer: tuple[Tensor, ...] | None) -> bool:
        """Hand the method its answer (None starts it) and take what it wants next.

        Returns:
            True once the method has returned; its outcome is then in `reply`.

        Raises:
            Exception: whatever the method raises.
        """
        try:
            wanted = next(self._method) if answer is None else self._method.send(answer)
            while isinstance(wanted, StepDone):
                if self._on_step is not None:
                    self._on_step(wanted)
                wanted = self._method.send(())
        except StopIteration as stop:
            self.mark(self._stage)
            self.finish(stop.value)
            return True
        self.pending = wanted if isinstance(wanted, tuple) else (wanted,)
        if self.pending:
            self.mark(STAGE_BY_ROLE[self.pending[0].role])
        return False

    def mark(self, stage: Stage) -> None:
        """Book the time since the last mark on the stage so far, and go on in `stage`."""
        now_ns = time.monotonic_ns()
        self.seconds[self._stage] += (now_ns - self._marked_ns) / 1e9
        self._stage, self._marked_ns = stage, now_ns

    def finish(self, outcome: Any) -> None:
        """Answer the caller."""
        self.reply.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        """Refuse, expire or fail the job; closes the method."""
        self._method.close()
        self.reply.set_exception(error)
