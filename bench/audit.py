"""Measures what the audit log costs a call: how long its record takes, and how long it keeps the event loop.

    PYTHONPATH=tests python bench/audit.py [folder]

The folder is where the log goes; its disk is what is measured. Prints a table, and keeps nothing.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from m2ib.v1 import settings_pb2
from m2ib_server.api.call import Call, CallEnd
from m2ib_server.settings import AuditSettings
from m2ib_server.sight.audit_log import AuditLog, open_audit_log

CALLERS = (1, 16, 64)
RECORDS = 300  # of each caller
SETTINGS = settings_pb2.Settings(beta=0.1, steps=10, samples=10, learning_rate=1, seed=1, repeats=1)


async def caller(log: AuditLog, waits: list[float], busy: list[float]) -> None:
    """Record one call after the other, and note for each how long it waited and how long it kept the loop."""
    for _ in range(RECORDS):
        call = Call(service="m2ib.v1.AttributionService", method="Explain", deadline_ns=None, settings=SETTINGS)
        call.images.append("5f" * 32)
        began = time.perf_counter()
        written = log.ended(call, CallEnd(code="OK"))
        busy.append(time.perf_counter() - began)
        assert written is not None
        await written
        waits.append(time.perf_counter() - began)


def measure(folder: Path, callers: int, *, syncs_always: bool) -> str:
    """Return a row: waits of a call and the loop's own share, both in milliseconds, and records a second."""
    key = folder / "key"
    key.write_bytes(bytes(32))
    log = open_audit_log(AuditSettings(file=folder / "audit.jsonl", salt_file=key, syncs_always=syncs_always))
    assert log is not None
    waits: list[float] = []
    busy: list[float] = []

    async def run() -> None:
        await asyncio.gather(*(caller(log, waits, busy) for _ in range(callers)))

    began = time.perf_counter()
    asyncio.run(run())
    seconds = time.perf_counter() - began
    log.close()
    p50, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    sync = "always" if syncs_always else "interval"
    per_call = statistics.mean(busy)
    rate = len(waits) / seconds
    return f"| {sync} | {callers} | {1e3 * p50:.2f} | {1e3 * p99:.2f} | {1e3 * per_call:.3f} | {rate:.0f} |"


def main() -> None:
    """Print the table."""
    print("| fsync | callers | p50 ms | p99 ms | event loop ms | records/s |\n|---|---|---|---|---|---|")
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    for syncs_always in (True, False):
        for callers in CALLERS:
            with tempfile.TemporaryDirectory(dir=parent) as folder:
                print(measure(Path(folder), callers, syncs_always=syncs_always))


if __name__ == "__main__":
    main()
