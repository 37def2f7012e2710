"""Cuts a job's step into turns of so many rows, and puts the answers together again. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from m2ib_server.methods import Evaluation
from m2ib_server.package import Role

Answer = tuple[Tensor, ...]


def rows_of(evaluations: Iterable[Evaluation]) -> int:
    """Count the rows of evaluations."""
    return sum(evaluation.rows for evaluation in evaluations)


def rows_by_role(evaluations: Iterable[Evaluation]) -> Mapping[Role, int]:
    """Count the rows of evaluations, by graph."""
    rows: Counter[Role] = Counter()
    for evaluation in evaluations:
        rows[evaluation.role] += evaluation.rows
    return rows


def cut(step: Sequence[Evaluation], *, start: int, max_rows: int) -> list[Evaluation]:
    """Return the rows of a step from `start` on, at most `max_rows`; rows are counted through all its evaluations."""
    parts = []
    stop = start + max_rows
    for evaluation in step:
        if start < evaluation.rows and stop > 0:
            parts.append(evaluation.part(max(start, 0), min(stop, evaluation.rows)))
        start, stop = start - evaluation.rows, stop - evaluation.rows
    return parts


def joined(step: Sequence[Evaluation], answers: Iterable[tuple[Evaluation, Answer]]) -> Answer:
    """Return a step's outputs, flat and in order, from the answers to all its parts, in order."""
    outputs: list[Tensor] = []
    left = iter(answers)
    for evaluation in step:
        parts: list[Answer] = []
        rows = 0
        while rows < evaluation.rows:
            part, answer = next(left)
            parts.append(answer)
            rows += part.rows
        outputs.extend(parts[0] if len(parts) == 1 else (torch.cat(rows) for rows in zip(*parts, strict=True)))
    return tuple(outputs)
