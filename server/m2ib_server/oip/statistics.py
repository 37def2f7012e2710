"""Counts explanations, through whichever service they are asked for, and what they took: for ModelStatistics."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from m2ib.oip import inference_pb2 as oip
from m2ib_server.api.call import OK, Call, CallEnd

EXPLAINING = frozenset({"Explain", "ExplainStream", "ExplainBatch.pair", "ModelInfer", "ModelStreamInfer.request"})


@dataclass(slots=True)
class _Tally:
    """How often something happened and how many nanoseconds it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def wire(self) -> oip.StatisticDuration:
        return oip.StatisticDuration(count=self.count, ns=self.ns)


@dataclass(slots=True)
class _Record:
    """What is known of one version of one model."""

    last_ms: int = 0
    executions: int = 0
    success: _Tally = field(default_factory=_Tally)
    fail: _Tally = field(default_factory=_Tally)
    queue: _Tally = field(default_factory=_Tally)
    compute_input: _Tally = field(default_factory=_Tally)
    compute_infer: _Tally = field(default_factory=_Tally)
    compute_output: _Tally = field(default_factory=_Tally)


class InferenceStatistics:
    """The observer that counts. One event loop's alone."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Know of no explanation yet; `now_ns` is the wall clock."""
        self._now_ns = now_ns
        self._records: dict[tuple[str, str], _Record] = {}

    def begun(self, call: Call) -> None:
        """Count nothing yet."""

    def ended(self, call: Call, end: CallEnd) -> None:
        """Count an explanation whose model was found."""
        if call.method not in EXPLAINING or not call.model:
            return
        record = self._records.setdefault((call.model, call.version), _Record())
        spent_ns = round(call.seconds * 1e9)
        if end.code != OK or call.timings is None:
            record.fail.add(spent_ns)
            return
        record.last_ms = self._now_ns() // 1_000_000
        record.executions += not call.shared
        record.success.add(spent_ns)
        timings = call.timings
        record.queue.add(_ns(timings.queue))
        record.compute_input.add(_ns(timings.prepare))
        record.compute_infer.add(_ns(timings.encode) + _ns(timings.optimise_image) + _ns(timings.optimise_text))
        record.compute_output.add(_ns(timings.render))

    def write(self, name: str, version: str) -> oip.ModelStatistics:
        """Write what is known of a model."""
        record = self._records.get((name, version), _Record())
        computing = {
            "compute_input": record.compute_input.wire(),
            "compute_infer": record.compute_infer.wire(),
            "compute_output": record.compute_output.wire(),
        }
        return oip.ModelStatistics(
            name=name,
            version=version,
            last_inference=record.last_ms,
            inference_count=record.success.count,
            execution_count=record.executions,
            inference_stats=oip.InferStatistics(
                success=record.success.wire(), fail=record.fail.wire(), queue=record.queue.wire(), **computing
            ),
            batch_stats=[oip.InferBatchStatistics(batch_size=1, **computing)] if record.success.count else [],
        )


def _ns(duration: Duration) -> int:
    return duration.ToNanoseconds()
