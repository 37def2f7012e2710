"""Evaluates what jobs wait for: from the cache, or in as few calls of the graphs as possible."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from m2ib_server.engine.cache import CacheKey, FeatureCache
from m2ib_server.engine.schedule import Pending, batches
from m2ib_server.package import Role

Answer = tuple[Tensor, ...]


class Graphs(Protocol):
    """A model's frozen graphs."""

    def run(self, role: Role, inputs: Mapping[str, Tensor]) -> Answer:
        """Evaluate one graph; output rows depend on the input rows of the same index only."""
        ...

    def layer(self, role: Role) -> int:
        """Return the bottleneck's block in the encoder that the graph is a part of."""
        ...


class Evaluator:
    """Evaluates on one device. One thread's alone."""

    def __init__(self, models: Mapping[str, Graphs], *, max_rows: int, cache: FeatureCache) -> None:
        """Evaluate with the graphs of `models`, by digest, at most `max_rows` rows a call."""
        self._models = models
        self._max_rows = max_rows
        self._cache = cache

    def recall(self, pending: Pending) -> Answer | None:
        """Return an evaluation's outputs if they are kept."""
        key = self._key(pending)
        return None if key is None else self._cache.get(key)

    def evaluate(self, pending: Sequence[Pending]) -> list[Answer | Exception]:
        """Return each evaluation's outputs, or why it failed; one that fails does not touch the others."""
        answers: list[Answer | Exception] = [()] * len(pending)
        for group in batches(pending, self._max_rows):
            for index, answer in zip(group, self._call([pending[index] for index in group]), strict=True):
                answers[index] = answer
                key = self._key(pending[index])
                if key is not None and not isinstance(answer, Exception):
                    self._cache.put(key, answer)
        return answers

    def _call(self, group: Sequence[Pending]) -> Sequence[Answer | Exception]:
        """Evaluate a group in one call; when that fails, each alone, so that only the culprit fails."""
        first = group[0]
        graphs, role = self._models[first.model], first.evaluation.role
        try:
            if len(group) == 1:
                return [graphs.run(role, first.evaluation.inputs)]
            names = first.evaluation.inputs.keys()
            stacked = {name: torch.cat([item.evaluation.inputs[name] for item in group]) for name in names}
            return _split(graphs.run(role, stacked), [item.evaluation.rows for item in group])
        except Exception as error:  # whatever a runtime raises is this group's fault alone
            if len(group) == 1:
                return [error]
            return [answer for item in group for answer in self._call([item])]

    def _key(self, pending: Pending) -> CacheKey | None:
        evaluation = pending.evaluation
        if evaluation.digest is None:
            return None
        layer = self._models[pending.model].layer(evaluation.role)
        return CacheKey(model=pending.model, role=evaluation.role, layer=layer, content=evaluation.digest)


def _split(outputs: Answer, rows: Sequence[int]) -> list[Answer]:
    """Give each evaluation its rows, in memory of their own: what one job keeps must not hold a whole batch."""
    parts = [[part.clone() for part in torch.split(output, list(rows))] for output in outputs]
    return list(zip(*parts, strict=True))
