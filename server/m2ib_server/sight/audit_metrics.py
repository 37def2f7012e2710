"""Tells whether the audit log is written, and how many calls have no record of their own in it."""

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class AuditState(Protocol):
    """What an audit log tells of itself, on any thread."""

    suppressed_calls: int  # refused for want of credentials and counted together, since the server began

    @property
    def is_failing(self) -> bool:
        """Whether it could not be written when that was tried last, or its disk hangs."""
        ...

    @property
    def lost_calls(self) -> int:
        """How many calls it could not record since the server began."""
        ...


class AuditCollector(Collector):
    """Reads the audit log's state; all is 0 where there is no log."""

    def __init__(self, log: AuditState | None) -> None:
        """Read this log."""
        self._log = log

    def collect(self) -> Iterator[Metric]:
        """Read it once."""
        log = self._log
        yield GaugeMetricFamily(
            "m2ib_audit_failing",
            "1 while the audit log cannot be written, or its disk hangs.",
            value=0 if log is None else int(log.is_failing),
        )
        yield CounterMetricFamily(
            "m2ib_audit_lost_calls",
            "Calls that could not be recorded in the audit log.",
            value=0 if log is None else log.lost_calls,
        )
        yield CounterMetricFamily(
            "m2ib_audit_suppressed_calls",
            "Calls refused for want of credentials that the audit log counts together.",
            value=0 if log is None else log.suppressed_calls,
        )
