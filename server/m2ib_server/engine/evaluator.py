"""Evaluates what jobs wait for: from the cache, or in as few calls of the graphs as possible."""

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from m2ib_server.engine.cache import CacheKey, FeatureCache
from m2ib_server.engine.cost import CostModel
from m2ib_server.engine.observer import UNOBSERVED, EngineObserver
from m2ib_server.engine.schedule import Pending, batches
from m2ib_server.engine.turn import Answer
from m2ib_server.errors import EvaluationAborted, ModelGone
from m2ib_server.package import Role


class Graphs(Protocol):
    """A model's frozen graphs on one device."""

    def run(self, role: Role, inputs: Mapping[str, Tensor]) -> Answer:
        """Evaluate one graph; output rows depend on the input rows of the same index only."""
        ...

    def trim(self) -> None:
        """Give back the memory that large batches took."""
        ...

    def abort(self) -> None:
        """End the evaluation that is under way, if one is; any thread may call this."""
        ...

    def layer(self, role: Role) -> int:
        """Return the bottleneck's block in the encoder that the graph is a part of."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What came of an evaluation.

    Attributes:
        answer: its outputs, or why it failed.
        is_recalled: whether it cost nothing: it was kept, or another job wanted the same in the same round.
    """

    answer: Answer | Exception
    is_recalled: bool = False


@dataclass(slots=True)
class EvaluatorCounts:
    """What an evaluator has done so far: hits and misses of the cache and rows evaluated, by graph."""

    hits: Counter[Role]
    misses: Counter[Role]
    rows: Counter[Role]
    calls: Counter[Role]


class Evaluator:
    """Evaluates on one device. One thread's alone, but for its counts, which any may read, and its models.

    Models come and go while it works: the mapping is copied to be changed, never changed, so that a round sees one
    state of it from beginning to end. What was kept of a model that has gone is forgotten before the next round.
    """

    def __init__(
        self, *, max_rows: int, cache: FeatureCache, costs: CostModel, observer: EngineObserver = UNOBSERVED
    ) -> None:
        """Begin without a model; `costs` learns from what is evaluated, `observer` is told of every call.

        max_rows: the most rows of a call, and of an evaluation.
        """
        self.counts = EvaluatorCounts(Counter(), Counter(), Counter(), Counter())
        self.max_rows = max_rows
        self._models: Mapping[str, Graphs] = {}
        self._changing = threading.Lock()
        self._removed: deque[str] = deque()
        self.cache = cache
        self._costs = costs
        self._observer = observer

    def add(self, digest: str, graphs: Graphs) -> None:
        """Take a model, by its package's digest; any thread may call this."""
        with self._changing:
            assert digest not in self._models, "a model is added once, for whoever removes it takes it from all"
            self._models = {**self._models, digest: graphs}

    def holds(self, digest: str) -> bool:
        """Whether it has a model; any thread may ask."""
        return digest in self._models

    def remove(self, digest: str) -> None:
        """Let go of a model and of what was kept of it; any thread may call this, also for one that is not there.

        An evaluation that still asks for it fails alone.
        """
        with self._changing:
            self._models = {known: graphs for known, graphs in self._models.items() if known != digest}
        self._removed.append(digest)

    def evaluate(self, pending: Sequence[Pending]) -> list[Evaluated]:
        """Return what came of each evaluation; one that fails does not touch the others."""
        models = self._models
        self._forget_removed()
        keys = [_key(item, models) for item in pending]
        first_of: dict[CacheKey, int] = {}
        evaluated: dict[int, Evaluated] = {}
        wanted: list[int] = []
        for index, key in enumerate(keys):
            kept = None if key is None else self.cache.get(key)
            if kept is not None:
                evaluated[index] = Evaluated(answer=kept, is_recalled=True)
            elif key is None or first_of.setdefault(key, index) == index:
                wanted.append(index)
        for index, answer in zip(wanted, self._compute([pending[index] for index in wanted], models), strict=True):
            evaluated[index] = Evaluated(answer=answer)
            key = keys[index]
            if key is not None and not isinstance(answer, Exception):
                self.cache.put(key, tuple(tensor.clone() for tensor in answer))  # out of the runtime's arena
        for index, key in enumerate(keys):
            if index not in evaluated and key is not None:
                evaluated[index] = Evaluated(answer=evaluated[first_of[key]].answer, is_recalled=True)
            if key is not None:
                tally = self.counts.hits if evaluated[index].is_recalled else self.counts.misses
                tally[pending[index].evaluation.role] += 1
        return [evaluated[index] for index in range(len(pending))]

    def abort(self) -> None:
        """End the evaluation that is under way, if one is; any thread may call this."""
        for graphs in self._models.values():
            graphs.abort()

    def forget(self) -> None:
        """Forget what was kept; for a compute thread that begins where another one has ended by a fault."""
        self.cache.clear()

    def trim(self) -> None:
        """Give back the memory that large batches took, and what was kept of models that have gone."""
        self._forget_removed()
        for graphs in self._models.values():
            graphs.trim()

    def _forget_removed(self) -> None:
        while self._removed:
            digest = self._removed.popleft()
            self.cache.forget(digest)
            self._costs.forget(digest)

    def _compute(self, pending: Sequence[Pending], models: Mapping[str, Graphs]) -> list[Answer | Exception]:
        answers: dict[int, Answer | Exception] = {}
        for call in batches(pending, self.max_rows):
            answers |= zip(call, self._call([pending[index] for index in call], models), strict=True)
        return [answers[index] for index in range(len(pending))]

    def _call(self, call: Sequence[Pending], models: Mapping[str, Graphs]) -> Sequence[Answer | Exception]:
        """Evaluate in one call; when that fails, each alone, so that only the culprit fails."""
        model, role = call[0].model, call[0].evaluation.role
        if model not in models:  # nobody who waits for an answer holds one: who does has a lease on the model
            return [ModelGone() for _ in call]
        inputs = [item.evaluation.inputs for item in call]
        sizes = [item.evaluation.rows for item in call]
        started = time.perf_counter()
        try:
            outputs = models[model].run(role, _joined(inputs))
            answers = [outputs] if len(call) == 1 else _split(outputs, sizes)
        except EvaluationAborted as error:  # no time for each of them alone: one would take as long again
            return [error for _ in call]
        except Exception as error:  # whatever a runtime raises is the fault of these evaluations alone
            if len(call) == 1:
                return [error]
            return [answer for item in call for answer in self._call([item], models)]
        rows, seconds = sum(sizes), time.perf_counter() - started
        self._costs.observe(model, role, rows=rows, seconds=seconds)
        self._observer.called(role, rows=rows, seconds=seconds)
        self.counts.calls[role] += 1
        self.counts.rows[role] += rows
        return answers


def _key(pending: Pending, models: Mapping[str, Graphs]) -> CacheKey | None:
    evaluation = pending.evaluation
    if evaluation.digest is None or pending.model not in models:
        return None
    layer = models[pending.model].layer(evaluation.role)
    return CacheKey(model=pending.model, role=evaluation.role, layer=layer, content=evaluation.digest)


def _joined(inputs: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    return inputs[0] if len(inputs) == 1 else {name: torch.cat([rows[name] for rows in inputs]) for name in inputs[0]}


def _split(outputs: Answer, rows: Sequence[int]) -> list[Answer]:
    """Give each evaluation its rows, in memory of their own: what one job keeps must not hold a whole batch."""
    parts = [[part.clone() for part in torch.split(output, list(rows))] for output in outputs]
    return list(zip(*parts, strict=True))
