import asyncio
import json
import os
import subprocess
import time
from contextlib import contextmanager

import pytest

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from m2ib_server.api.call import Call, CallEnd
from m2ib_server.errors import AuditUnavailable, AuditUnusable
from m2ib_server.settings import AuditSettings
from m2ib_server.sight import audit_writer
from m2ib_server.sight.audit_log import open_audit_log
from m2ib_server.sight.audit_refusals import BURST, PER_SECOND
from m2ib_server.sight.audit_verify import verify

SHA256 = "5f" * 32


@pytest.fixture
def settings(tmp_path):
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    return AuditSettings(file=tmp_path / "audit.jsonl", salt_file=key)


@contextmanager
def opened(settings, **changes):
    chosen = {name: getattr(settings, name) for name in AuditSettings.__slots__} | changes
    log = open_audit_log(AuditSettings(**chosen))
    try:
        yield log
    finally:
        log.close()


def call(**fields) -> Call:
    return Call(service="m2ib.v1.AttributionService", method="Explain", deadline_ns=None, **fields)


def records(settings) -> list[dict]:
    return [json.loads(line) for line in settings.file.read_text().splitlines()]


async def record(log, **fields) -> None:
    made = call(**fields)
    log.begun(made)
    await log.ended(made, CallEnd(code="OK"))


async def test_a_call_s_record_says_who_asked_for_what_and_what_came_of_it(settings):
    timings = pb.Timings()
    timings.total.FromMilliseconds(1500)
    with opened(settings) as log:
        asked = call(
            caller="ward-7",
            model="tiny",
            version="1",
            digest="d" * 64,
            images=[SHA256],
            settings=settings_pb2.Settings(steps=3, seed=2**64 - 1, effort=settings_pb2.EFFORT_FAST),
            timings=timings,
        )
        await log.ended(asked, CallEnd(code="RESOURCE_EXHAUSTED", reason="QUEUE_FULL"))
    start, written, stop = records(settings)
    assert (start["kind"], written["kind"], stop["kind"]) == ("start", "call", "stop")
    assert written["time"].endswith("Z")
    assert SHA256 not in settings.file.read_text()
    assert len(written["images"][0]) == 64
    assert written["settings"] == {"steps": 3, "seed": 2**64 - 1, "effort": "EFFORT_FAST"}
    assert written["timings"] == {"total": 1.5}
    expected = {"caller": "ward-7", "model": "tiny", "version": "1", "digest": "d" * 64, "method": "Explain"}
    assert written.items() >= (expected | {"code": "RESOURCE_EXHAUSTED", "reason": "QUEUE_FULL"}).items()
    assert verify([settings.file]).calls == 1


async def test_an_image_has_one_hash_under_one_key_and_another_under_another(settings, tmp_path):
    with opened(settings) as log:
        await record(log, images=[SHA256])
        await record(log, images=[SHA256, "00" * 32])
    other = tmp_path / "other"
    other.write_bytes(b"x" * 32)
    with opened(settings, salt_file=other) as log:
        await record(log, images=[SHA256])
    first, second, third = (each["images"] for each in records(settings) if each["kind"] == "call")
    assert first[0] == second[0] != second[1]
    assert third != first


@pytest.mark.parametrize("syncs_always", [True, False])
async def test_calls_that_end_together_are_each_recorded_once(settings, syncs_always):
    with opened(settings, syncs_always=syncs_always) as log:
        await asyncio.gather(*(record(log) for _ in range(50)))
    calls = [each["request_id"] for each in records(settings) if each["kind"] == "call"]
    assert len(calls) == len(set(calls)) == verify([settings.file]).calls == 50


async def test_a_call_whose_caller_has_left_is_recorded_and_nobody_waits(settings):
    with opened(settings) as log:
        assert log.ended(call(), CallEnd(code="CANCELLED")) is None
    assert [each["code"] for each in records(settings) if each["kind"] == "call"] == ["CANCELLED"]


UNKNOWN = CallEnd(code="UNAUTHENTICATED", reason="CREDENTIALS_INVALID")


async def refuse(log, times: int) -> None:
    """End calls of nobody who is known."""
    for _ in range(times):
        made = call()
        log.begun(made)
        if (written := log.ended(made, UNKNOWN)) is not None:
            await written


async def test_who_is_not_known_cannot_fill_the_disk_and_every_refusal_is_recorded_or_counted(settings):
    began = time.monotonic()
    with opened(settings) as log:
        await refuse(log, 20 * BURST)
        await record(log)
        recorded_for = time.monotonic() - began
    found, written = verify([settings.file]), records(settings)
    refused = [each for each in written if each.get("code") == "UNAUTHENTICATED"]
    assert BURST <= len(refused) <= BURST + PER_SECOND * recorded_for + 1
    assert found.suppressed + len(refused) == 20 * BURST
    assert found.calls == len(refused) + 1, "a call that is let in has its record, whatever knocks"
    for told in (each for each in written if each["kind"] == "suppressed"):
        assert told["reasons"] == {"CREDENTIALS_INVALID": told["calls"]}
        assert told["began"] <= told["time"]


async def test_refusals_without_a_record_are_counted_in_the_log_within_seconds_though_nothing_else_happens(settings):
    with opened(settings) as log:
        await refuse(log, 2 * BURST)
        await _until(lambda: any(each["kind"] == "suppressed" for each in records(settings)))


async def test_refusals_that_were_counted_and_cannot_be_recorded_are_missing_one_by_one(settings, full_disk):
    with opened(settings, file=full_disk / "audit.jsonl", refuses=False) as log:
        await refuse(log, refused := BURST)
        fill(full_disk)
        while not log._writer.is_failing:  # the last page has room for a record or two
            await refuse(log, BURST)
            await asyncio.sleep(0.05)
            refused += BURST
        (full_disk / "ballast").unlink()
        await _until_it_writes(log)
    found = verify([full_disk / "audit.jsonl"])
    assert found.unrecorded > BURST
    assert found.calls + found.suppressed + found.unrecorded == refused


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 KiB, and what fills it and empties it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "m2ib-audit-test", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


def fill(folder) -> None:
    with (folder / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
        while True:
            ballast.write(bytes(512))


async def _until(comes_true) -> None:
    for _ in range(1200):
        if comes_true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never comes true")


async def _until_it_writes(log) -> None:
    await _until(lambda: not log._writer.is_failing)


async def _until_refused(log) -> int:
    """Record until a record cannot be written any more; return how many could."""
    for count in range(1000):
        try:
            await record(log)
        except AuditUnavailable:
            return count
    raise AssertionError("the disk is never full")


async def test_on_a_full_disk_calls_are_refused_until_there_is_space_again(settings, full_disk):
    with opened(settings, file=full_disk / "audit.jsonl") as log:
        await record(log)
        fill(full_disk)
        written = 1 + await _until_refused(log)
        with pytest.raises(AuditUnavailable):
            log.begun(call())
        await asyncio.sleep(2 * audit_writer.PAUSE_SECONDS)  # it tries, and fails again
        with pytest.raises(AuditUnavailable):
            log.begun(call())
        (full_disk / "ballast").unlink()
        await _until_it_writes(log)
        await record(log)
        found = verify([full_disk / "audit.jsonl"])
        lines = (full_disk / "audit.jsonl").read_text().splitlines()
    resumed = [line for line in lines if '"kind":"resumed"' in line]
    assert found.calls == written + 1
    assert found.unrecorded == json.loads(resumed[0])["unrecorded"] == 1
    assert len(resumed) == 1


async def test_on_a_full_disk_calls_go_on_where_the_operator_wants_that_and_the_log_tells_how_many(settings, full_disk):
    with opened(settings, file=full_disk / "audit.jsonl", refuses=False) as log:
        fill(full_disk)
        for _ in range(100):
            await record(log)
        assert log._writer.is_failing
        (full_disk / "ballast").unlink()
        await _until_it_writes(log)
        await record(log)
        found = verify([full_disk / "audit.jsonl"])
    assert found.unrecorded > 0
    assert found.calls + found.unrecorded == 101


@pytest.mark.parametrize(
    ("key", "seen"), [(b"", "0 bytes"), (b"k" * 31, "31 bytes"), (None, "No such file")], ids=["empty", "short", "none"]
)
def test_a_key_that_hides_nothing_stops_the_server(settings, key, seen):
    settings.salt_file.unlink() if key is None else settings.salt_file.write_bytes(key)
    with pytest.raises(AuditUnusable, match=seen):
        open_audit_log(settings)


def test_a_log_in_no_folder_stops_the_server(settings, tmp_path):
    nowhere = AuditSettings(file=tmp_path / "nowhere" / "audit.jsonl", salt_file=settings.salt_file)
    with pytest.raises(AuditUnusable, match="FileNotFoundError"):
        open_audit_log(nowhere)


def test_without_settings_there_is_no_log():
    assert open_audit_log(AuditSettings()) is None
