"""Ten minutes of mixed calls against the real server: nothing is lost, and nothing is left behind.

`make soak` runs it; M2IB_SOAK_SECONDS is how long the calls go on after the warm phase.
"""

import asyncio
import json
import os
import time
from collections import Counter

import grpc
import pytest

from fakes.dicom_files import CANARY
from m2ib.v1 import attribution_pb2_grpc
from m2ib_server.probe import is_serving
from m2ib_server.wire import EXPLAINING
from serving import running_server
from soak.caller import Ledger, soak
from soak.errand import Errands, Fate, Outcome
from vitals import Vitals, vitals_of

SECONDS = float(os.environ.get("M2IB_SOAK_SECONDS", "600"))
WARM_SECONDS = min(120.0, max(20.0, SECONDS / 5))  # caches and arenas have reached their size after it
IDLE_SECONDS = 9.0  # the engine gives memory back after five, uploads are forgotten after as many
SETTLE_SECONDS = 30.0
GROWTH_BYTES = 48 << 20  # what an allocator's fragments may add
ANONYMOUS_ADMINS = "anonymous callers are admins"  # at boot: it listens on loopback, and asks nobody for a name
AT_ONCE_SECONDS = 5.0
FLAGS = ("--upload-seconds", "5", "--cache-mebibytes", "1", "--threads", "2")


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + WARM_SECONDS + 600)
def test_mixed_calls_lose_nothing_and_leave_nothing_behind(models, tmp_path):
    with running_server(models, tmp_path, *FLAGS) as server:
        process = server.process.pid
        warm = asyncio.run(soak(server.address, WARM_SECONDS, seed=1))
        time.sleep(IDLE_SECONDS)
        before = vitals_of(process)
        ledger = asyncio.run(soak(server.address, SECONDS, seed=2))
        time.sleep(IDLE_SECONDS)
        after = _settled(process, before)
        fresh_seconds = _fresh_call(server.address)
        health = [is_serving(server.address, name, timeout_seconds=10) for name in ("", *EXPLAINING)]
        log = server.log()
        _tell(ledger, before, after, log)
        assert server.stop() == 0
        _check_nothing_is_left(server.log())

    for each in (warm, ledger):
        assert Counter(each.faults) == Counter()
        assert each.begun == each.ended.total()
    assert health == [True] * (1 + len(EXPLAINING))
    assert fresh_seconds < AT_ONCE_SECONDS
    assert after.threads <= before.threads
    assert after.descriptors <= before.descriptors
    assert after.resident_bytes - before.resident_bytes < GROWTH_BYTES
    _check_log(log, [*warm.answered_ids, *ledger.answered_ids])
    all_calls = warm.ended + ledger.ended
    assert {fate for _, fate, _ in all_calls} == set(Fate)
    assert {outcome for _, _, outcome in all_calls} == set(Outcome) - {Outcome.LOST, Outcome.WRONG}


def _settled(process: int, before: Vitals) -> Vitals:
    """Return the vitals once threads and descriptors are back at their level, or whatever they are in the end."""
    give_up = time.monotonic() + SETTLE_SECONDS
    while True:
        vitals = vitals_of(process)
        is_back = vitals.threads <= before.threads and vitals.descriptors <= before.descriptors
        if is_back or time.monotonic() > give_up:
            return vitals
        time.sleep(0.5)


def _fresh_call(address: str) -> float:
    """Explain one pair as the only caller; return the seconds that it took."""
    errands = Errands(3)
    errand = next(each for each in iter(errands.draw, None) if each.fate is Fate.PLAIN and len(each.requests) == 1)
    with grpc.insecure_channel(address) as channel:
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        started = time.monotonic()
        stub.Explain(errand.requests[0], timeout=60)
        return time.monotonic() - started


def _check_log(log: str, answered_ids: list[str]) -> None:
    """Every answered call has one line of its own that says so; nothing failed inside, no patient is named."""
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["event"] for line in lines if line["level"] != "INFO"] == [ANONYMOUS_ADMINS]
    calls = [line for line in lines if line["event"] == "call ended"]
    code_by_id = {line["request_id"]: line["code"] for line in calls}
    assert len(code_by_id) == len(calls)
    assert len(set(answered_ids)) == len(answered_ids)
    assert {code_by_id.get(each) for each in answered_ids} == {"OK"}
    assert CANARY not in log


def _check_nothing_is_left(log: str) -> None:
    """What each engine and the store of uploads held at the end: nothing."""
    lines = [json.loads(line) for line in log.splitlines()]
    stopping = [line for line in lines if line["event"] == "engine stopping"]
    assert stopping
    assert [(line["waiting"], line["running"], line["callers"]) for line in stopping] == [(0, 0, 0)] * len(stopping)
    (uploads,) = [line for line in lines if line["event"] == "uploads forgotten"]
    assert (uploads["uploads"], uploads["upload_bytes"]) == (0, 0)


def _tell(ledger: Ledger, before: Vitals, after: Vitals, log: str) -> None:
    """Print the account."""
    outcomes: Counter[str] = Counter()
    for (_, fate, outcome), count in ledger.ended.items():
        outcomes[f"{fate} {outcome}"] += count
    endings = [json.loads(line) for line in log.splitlines()]
    reasons = Counter(line.get("reason") or line["code"] for line in endings if line["event"] == "call ended")
    print(f"\n{ledger.begun} calls after the warm phase: {dict(sorted(outcomes.items()))}")
    print(f"the log's endings: {dict(sorted(reasons.items()))}")
    print(f"before: {before}\nafter:  {after}")
