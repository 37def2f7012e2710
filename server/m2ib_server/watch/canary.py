"""A canary: a tiny explanation by which an engine proves, with every graph of a model, that it still answers."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from m2ib_server.engine import Caller, Job, LoadedModel, Priority
from m2ib_server.methods import Attribution, Evaluation, M2IBSettings, MaskShape, Side, explain, work
from m2ib_server.methods.evaluation import Method, Outcome

SETTINGS = M2IBSettings(
    beta=0.1,
    text_beta=0.1,
    steps=1,
    samples=1,
    learning_rate=1.0,
    mask_shape=MaskShape.CHANNEL,
    text_mask_shape=MaskShape.CHANNEL,
    seed=0,
)
SIDES = tuple(Side)
TOLERANCE = 0.01  # of a similarity from that of the first canary; half precision and other batches stay far below


class Canary:
    """One canary under way. Its image is black and its text the model's own: it has nothing of a patient."""

    def __init__(self, model: LoadedModel) -> None:
        """Prepare a canary. Takes a millisecond."""
        text = model.tokeniser.encode(model.references.texts[0], truncate=True)
        image = model.image_input(torch.zeros(model.model_input.shape).numpy())
        self.caller: Caller[Attribution] = Caller()
        self.job: Job[Attribution] = Job(
            unkept(explain(image, model.text_input(text), SETTINGS, SIDES)),
            model=model.digest,
            rows=SETTINGS.rows,
            work=work(SETTINGS, SIDES),
            priority=Priority.INTERACTIVE,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.caller.reply.done()

    def similarity(self) -> float:
        """Return what it found, once it is over.

        Raises:
            Exception: whatever it ended in.
        """
        attribution = self.caller.reply.result(timeout=0)
        bits = [course[-1].bits for course in attribution.course.values()]
        if not all(bool(torch.isfinite(each).all()) for each in bits):
            raise ArithmeticError("a canary whose map is not finite")
        return attribution.similarity


def is_as_before(similarity: float, first: float) -> bool:
    """Tell whether a canary found what the first one of its model on its engine found."""
    return math.isfinite(similarity) and abs(similarity - first) <= TOLERANCE


def unkept(method: Method[Outcome]) -> Method[Outcome]:
    """Let a method's evaluations be computed each time: what the cache recalls proves nothing, and takes room."""
    answer: tuple[Tensor, ...] | None = None
    try:
        while True:
            wanted = next(method) if answer is None else method.send(answer)
            if isinstance(wanted, tuple):
                answer = yield tuple(replace(each, digest=None) for each in wanted)
            else:
                answer = yield replace(wanted, digest=None) if isinstance(wanted, Evaluation) else wanted
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    finally:
        method.close()
