"""Owns what a method says to whoever runs it: evaluate these rows, or: this has happened. Runs nothing itself."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from torch import Tensor

from m2ib_server.package import Role

Outcome = TypeVar("Outcome")


class Side(StrEnum):
    """One of the two encoders."""

    IMAGE = "image"
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Rows that a method wants evaluated by one frozen graph.

    Attributes:
        role: the graph.
        inputs: a tensor for each input port; dimension 0 counts rows, as many in each. Rows are independent.
        digest: SHA-256 of the content on which alone the outputs depend, so that they may be kept; None when they
            depend on more, such as noise.
    """

    role: Role
    inputs: Mapping[str, Tensor]
    digest: str | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return next(iter(self.inputs.values())).shape[0]

    def part(self, start: int, stop: int) -> "Evaluation":
        """Return the evaluation of rows `start` to `stop`; a real part has content of its own, so no digest."""
        if (start, stop) == (0, self.rows):
            return self
        return Evaluation(role=self.role, inputs={name: rows[start:stop] for name, rows in self.inputs.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """An optimisation step that is done.

    Attributes:
        side: the side whose mask is optimised.
        step: the step just done, from 1.
        steps: the steps in all.
        loss: the objective at this step, mean over repeats.
        similarity: the mean cosine similarity of the noised rows with the other side, in [-1, 1].
        repeat_bits: information per token [repeats, tokens], in bits, >= 0, on the CPU.
    """

    side: Side
    step: int
    steps: int
    loss: float
    similarity: float
    repeat_bits: Tensor

    @property
    def bits(self) -> Tensor:
        """Information per token [tokens], in bits, mean over repeats."""
        return self.repeat_bits.mean(dim=0)

    @property
    def bits_kept(self) -> float:
        """Information summed over tokens, in bits, mean over repeats."""
        return float(self.bits.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class PairEncoded:
    """Both sides of a pair are encoded.

    Attributes:
        similarity: the pair's cosine similarity without a bottleneck, in [-1, 1].
        image_embedding: normalised [1, embedding width], on the CPU.
    """

    similarity: float
    image_embedding: Tensor


Event = PairEncoded | StepDone

# A method yields what it wants evaluated, alone or several at once, and gets the output tensors back, in order and
# flat; it yields an event and gets nothing back; it returns its outcome.
Method = Generator[Evaluation | tuple[Evaluation, ...] | Event, tuple[Tensor, ...], Outcome]
