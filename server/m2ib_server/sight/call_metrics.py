"""Counts the ends of calls by their stable reason, pairs of batches included, and times their stages."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from m2ib_server.api.call import Call, CallEnd

STAGE_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class CallMetrics:
    """The observer that counts; the RPCs themselves are counted by `rpc_metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Count in `registry`."""
        options: Any = {"registry": registry}
        self._ended = Counter(
            "m2ib_calls_ended",
            "Calls, and pairs of batches, by what they ended in; reason is empty without a fault.",
            labelnames=("method", "code", "reason"),
            **options,
        )
        self._stages = Histogram(
            "m2ib_stage_seconds",
            "Time that a call spent on a stage, from its begin to its end.",
            labelnames=("stage",),
            buckets=STAGE_SECONDS,
            **options,
        )

    def begun(self, call: Call) -> None:
        """Count nothing."""

    def ended(self, call: Call, end: CallEnd) -> None:
        """Count the end and the stages that there were."""
        self._ended.labels(call.method, end.code, end.reason).inc()
        for period in list(call.stages):
            self._stages.labels(period.stage).observe(period.seconds)
