import os
import resource
from contextlib import closing, contextmanager

import pytest

from m2ib_server.errors import AuditUnusable
from m2ib_server.sight.audit_chain import link
from m2ib_server.sight.audit_file import AuditFile
from m2ib_server.sight.audit_verify import ChainBroken, verify

BODY = {"kind": "call", "time": "2026-11-25T19:00:00.000Z", "caller": "ward 7"}


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.jsonl"


def write(log, count=1, *, max_bytes=1 << 20) -> AuditFile:
    """Open the log, account for what was cut short, append and close."""
    with closing(AuditFile(log, max_bytes=max_bytes)) as file:
        file.open()
        if file.torn:
            file.append({"kind": "recovery", "torn": file.torn})
        for _ in range(count):
            file.append(BODY)
        file.sync()
    return file


def test_the_log_is_its_owner_s_alone(log):
    write(log)
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_chain_goes_on_after_a_restart(log):
    write(log, 3)
    head = write(log, 2).head
    assert head.sequence == 5
    assert verify([log]).head == head


def test_a_second_server_is_refused(log):
    with closing(AuditFile(log, max_bytes=1 << 20)) as first, closing(AuditFile(log, max_bytes=1 << 20)) as second:
        first.open()
        with pytest.raises(AuditUnusable, match="lock"):
            second.open()
    write(log)


def test_a_full_file_is_put_aside_and_the_next_one_continues_the_chain(log):
    write(log, 6, max_bytes=600)
    head = write(log, 6, max_bytes=600).head
    parts = sorted(log.parent.glob("audit.jsonl.0*"))
    assert [part.name for part in parts] == [f"audit.jsonl.{number:06d}" for number in range(1, len(parts) + 1)]
    assert len(parts) >= 3
    assert verify([*parts, log]).head == head
    with pytest.raises(ChainBroken):
        verify([log])


def test_a_crash_between_two_files_breaks_nothing(log):
    write(log, 3)
    log.rename(log.with_name("audit.jsonl.000001"))
    assert write(log).head.sequence == 4
    assert verify([log.with_name("audit.jsonl.000001"), log]).records == 4


@pytest.mark.parametrize("kept", [1, 20, 200])
def test_a_record_that_a_crash_cut_short_stays_and_is_accounted_for(log, kept):
    head = write(log, 2).head
    whole = log.read_bytes()
    torn = link(BODY, head)[0][:kept]
    log.write_bytes(whole + torn)
    assert write(log).head.sequence == 4
    assert log.read_bytes().startswith(whole + torn + b"\n")
    assert verify([log]).torn == 1


def test_a_crash_while_that_is_accounted_for_is_accounted_for_too(log):
    head = write(log, 2).head
    with log.open("ab") as stream:
        stream.write(b'{"caller":"wa\n' + link({"kind": "recovery"}, head)[0][:30])
    write(log)
    assert verify([log]).torn == 2


@pytest.mark.parametrize("records", [1, 3])
def test_whole_lines_that_are_no_records_were_no_crash_and_stop_the_server(log, records):
    """A crash leaves a line without its end; records that somebody made unreadable have theirs."""
    write(log, 6)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:-records], *(b"#" + line[1:] for line in lines[-records:])]))
    before = log.read_bytes()
    with pytest.raises(AuditUnusable, match="no crash leaves"):
        write(log)
    assert log.read_bytes() == before


def test_of_several_lines_a_crash_leaves_only_what_began_to_account_for_the_first(log):
    write(log, 6)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:-2], b"#" + lines[-2][1:], lines[-1][:-20]]))
    with pytest.raises(AuditUnusable, match="no crash leaves"):
        write(log)


@contextmanager
def disk_of(size_bytes):
    """Let no file of this process grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("room", "torn"), [(0, 1), (1, 2), (2, 4), (9, 4), (10, 4), (74, 4), (90, 4), (200, 4)], ids=str
)
def test_a_full_disk_leaves_nothing_that_is_taken_for_a_forgery(log, room, torn):
    """The first try has 40 bytes of room, and there are so many more for each of three others; none is enough."""
    write(log, 3)
    size = log.stat().st_size + 40
    for _ in range(4):
        with disk_of(size), pytest.raises(OSError, match=r"not the whole record|File too large"):
            write(log)
        size += room
    write(log)
    found = verify([log])
    assert (found.records, found.torn) == (5, torn)


@pytest.mark.parametrize("cut", [1, 30])
def test_a_file_that_is_full_when_its_end_is_cut_short_is_mended_before_it_is_put_aside(log, cut):
    """Of the last record its line's end is missing, or more."""
    write(log, 3)
    log.write_bytes(log.read_bytes()[:-cut])
    head = write(log, 2, max_bytes=log.stat().st_size).head
    assert verify([log.with_name("audit.jsonl.000001"), log]).head == head


def test_the_first_record_of_all_may_be_cut_short(log):
    log.write_bytes(b'{"call')
    write(log)
    assert (verify([log]).torn, verify([log]).records) == (1, 2)


def test_a_record_that_lacks_its_line_s_end_alone_is_whole(log):
    write(log, 2)
    log.write_bytes(log.read_bytes()[:-1])
    write(log)
    assert (verify([log]).records, verify([log]).torn) == (3, 0)


def test_a_last_record_that_was_changed_stops_the_server(log):
    write(log, 2)
    log.write_bytes(log.read_bytes().replace(b"ward 7", b"ward 8"))
    with pytest.raises(AuditUnusable, match="no crash leaves"):
        write(log)


def test_what_is_no_file_is_refused(log):
    os.mkfifo(log)
    with pytest.raises((AuditUnusable, OSError)), closing(AuditFile(log, max_bytes=1 << 20)) as file:
        file.open()


def test_a_log_that_was_moved_away_is_not_written_to_and_a_new_file_continues_the_chain(log):
    with closing(AuditFile(log, max_bytes=1 << 20)) as file:
        file.open()
        file.append(BODY)
        log.rename(log.with_name("moved"))
        with pytest.raises(OSError, match="No such file"):
            file.append(BODY)
        file.open()
        file.append(BODY)
    assert verify([log.with_name("moved"), log]).records == 2


def test_a_log_that_was_emptied_while_open_is_found_out(log):
    with closing(AuditFile(log, max_bytes=1 << 20)) as file:
        file.open()
        file.append(BODY)
        os.truncate(log, 0)
        file.append(BODY)
    with pytest.raises(ChainBroken, match="records are missing"):
        verify([log])
