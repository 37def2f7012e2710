"""Runs the server's engine in this process, without gRPC: what is asked of it, and how many at a time."""

import queue
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from m2ib_server.bootstrap import build
from m2ib_server.engine import Caller, Job
from m2ib_server.methods import Attribution, M2IBSettings, MaskShape, Side, explain
from m2ib_server.settings import ServerSettings
from subject import TEXT, Subject, numbered_picture, pixel_values

BETA = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One explanation of both sides; unless said otherwise, as published.

    Attributes:
        image: the number of the picture; a new one is encoded, of a known one the features are kept.
        text: the text; cut where it is longer than the model takes.
        steps: optimisation steps.
        samples: noise rows per step.
        seed: of the noise.
    """

    image: int = 0
    text: str = TEXT
    steps: int = 10
    samples: int = 10
    seed: int = 0


class EngineAlone:
    """An engine with one model, with the server's own settings; a context manager."""

    def __init__(self, subject: Subject, threads: int) -> None:
        """Load the model; the engine runs at once."""
        self._preset = subject.preset
        settings = ServerSettings(models=subject.models, listen="127.0.0.1:0", device="cpu", threads=threads)
        self._rooms = build(settings)
        self._rooms.repository.load_all()
        (self.model,) = self._rooms.catalogue
        (self._engine,) = self._rooms.fleet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._rooms.fleet.close()

    @property
    def patches(self) -> int:
        """The model's patches of an image."""
        vision = self.model.manifest.vision
        return vision.grid_rows * vision.grid_columns

    def tokens(self, text: str) -> int:
        """Return the tokens that are left of a text, special ones included."""
        return len(self.model.tokeniser.encode(text, truncate=True).token_ids)

    def prepare(self, asked: Asked) -> Job[Attribution]:
        """Draw the picture and make the job, so that it can be timed without."""
        settings = M2IBSettings(
            beta=BETA,
            text_beta=BETA,
            steps=asked.steps,
            samples=asked.samples,
            learning_rate=1.0,
            mask_shape=MaskShape.CHANNEL,
            text_mask_shape=MaskShape.CHANNEL,
            seed=asked.seed,
        )
        image = self.model.image_input(pixel_values(numbered_picture(self._preset, asked.image))[0])
        text = self.model.text_input(self.model.tokeniser.encode(asked.text, truncate=True))
        return Job(explain(image, text, settings, tuple(Side)), model=self.model.digest, rows=settings.rows)

    def submit(self, job: Job[Attribution]) -> Future[Attribution]:
        """Hand in a job."""
        caller: Caller[Attribution] = Caller()
        self._engine.submit(job, caller)
        return caller.reply

    def run(self, jobs: Iterable[Job[Attribution]], in_flight: int) -> None:
        """Have everything done, so many at a time."""
        done: queue.SimpleQueue[Future[Attribution]] = queue.SimpleQueue()
        under_way = 0
        for job in jobs:
            if under_way == in_flight:
                done.get().result()
                under_way -= 1
            self.submit(job).add_done_callback(done.put)
            under_way += 1
        for _ in range(under_way):
            done.get().result()
