import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from m2ib_server.sight.audit_chain import START, LineBroken, Link, link, read_line, torn_entry
from m2ib_server.sight.audit_command import audit
from m2ib_server.sight.audit_verify import ChainBroken, verify

BODIES = [
    {"kind": "call", "time": f"2026-11-25T19:00:0{n}.000Z", "caller": f"c{n}", "seconds": n / 8} for n in range(6)
]


def chain(bodies=BODIES, head=START) -> tuple[list[bytes], Link]:
    lines = []
    for body in bodies:
        line, head = link(body, head)
        lines.append(line)
    return lines, head


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


def broken(log: Path, content: bytes, **expected) -> ChainBroken:
    log.write_bytes(content)
    with pytest.raises(ChainBroken) as caught:
        verify([log], **expected)
    return caught.value


def test_a_chain_that_was_left_alone_holds(log):
    lines, head = chain()
    log.write_bytes(b"".join(lines))
    finding = verify([log], expect_head=head.hash)
    assert (finding.records, finding.calls, finding.torn, finding.head) == (6, 6, 0, head)
    assert (finding.first_time, finding.last_time) == (BODIES[0]["time"], BODIES[-1]["time"])


@given(data=st.data())
def test_any_byte_that_is_changed_is_found(log, data):
    lines, _ = chain()
    content = bytearray(b"".join(lines))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    error = broken(log, bytes(content))
    changed = bytes(b"".join(lines))[:place].count(b"\n") + 1
    assert error.line in (changed, changed + 1)  # a change of a line's end is the next one's fault as much


@given(data=st.data())
def test_any_byte_that_is_added_or_removed_is_found(log, data):
    lines, _ = chain()
    content = b"".join(lines)
    place = data.draw(st.integers(0, len(content) - 1))
    added = data.draw(st.binary(max_size=3))
    broken(log, content[:place] + added + content[place + (not added) :])


@given(data=st.data())
def test_any_lines_that_are_removed_are_found(log, data):
    lines, head = chain()
    removed = data.draw(st.sets(st.integers(0, len(lines) - 1), min_size=1))
    kept = [line for number, line in enumerate(lines) if number not in removed]
    error = broken(log, b"".join(kept), expect_head=head.hash)
    first = min(removed) + 1
    assert error.line == (first if first <= len(kept) else 0)  # at the end only the expected head tells


@given(order=st.permutations(range(6)).filter(lambda order: order != list(range(6))))
def test_any_lines_that_change_places_are_found(log, order):
    lines, _ = chain()
    error = broken(log, b"".join(lines[number] for number in order))
    assert error.line == next(place for place, number in enumerate(order, start=1) if number != place - 1)


@given(data=st.data())
def test_a_record_that_is_written_anew_is_found_by_the_one_after_it(log, data):
    lines, _ = chain()
    place = data.draw(st.integers(0, len(lines) - 2))
    before = read_line(lines[place])
    forged, _ = link({**BODIES[place], "caller": "somebody else"}, Link(place, before.previous))
    error = broken(log, b"".join([*lines[:place], forged, *lines[place + 1 :]]))
    assert error.line == place + 2


def test_whoever_writes_the_whole_rest_anew_is_found_by_a_head_that_was_noted(log):
    lines, head = chain()
    forged, _ = chain([{**body, "caller": "somebody else"} for body in BODIES])
    log.write_bytes(b"".join(forged))
    assert verify([log]).records == len(lines)
    assert broken(log, b"".join(forged), expect_head=head.hash).line == 0


def test_a_head_noted_earlier_is_found_in_a_log_that_has_grown(log):
    lines, _ = chain()
    log.write_bytes(b"".join(lines))
    assert verify([log], expect_head=read_line(lines[2]).link.hash).records == 6


def test_files_are_read_in_the_chain_s_order_and_a_missing_one_is_found(tmp_path):
    lines, head = chain()
    parts = [tmp_path / name for name in ("audit.jsonl.000001", "audit.jsonl.000002", "audit.jsonl")]
    for part, held in zip(parts, (lines[:2], lines[2:4], lines[4:]), strict=True):
        part.write_bytes(b"".join(held))
    assert verify(parts[::-1], expect_head=head.hash).records == 6
    with pytest.raises(ChainBroken, match="records are missing") as caught:
        verify([parts[0], parts[2]])
    assert (caught.value.file, caught.value.line) == (parts[2], 1)
    with pytest.raises(ChainBroken, match="records are missing"):
        verify(parts[1:])
    kept_elsewhere = read_line(lines[1]).link.hash
    assert verify(parts[1:], after=kept_elsewhere).records == 4
    with pytest.raises(ChainBroken):
        verify(parts[2:], after=kept_elsewhere)


def test_a_line_that_a_crash_cut_short_is_believed_only_where_a_record_accounts_for_it(log):
    lines, head = chain()
    torn = b'{"caller":"c6","kin'
    recovery, last = link({"kind": "recovery", "torn": [torn_entry(torn)]}, head)
    whole = b"".join([*lines, torn + b"\n", recovery])
    log.write_bytes(whole)
    assert (verify([log]).torn, verify([log]).head) == (1, last)
    assert broken(log, b"".join([*lines, torn + b"\n"])).line == 7
    assert broken(log, b"".join([*lines, torn])).line == 7
    assert broken(log, b"".join([*lines, torn[:-1] + b"\n", recovery])).line == 7
    assert "missing" in str(broken(log, b"".join([*lines, recovery])))


@pytest.mark.parametrize(
    ("second", "is_believed"),
    [
        (b"{", True),
        (b'{"hash":"' + b"0" * 64 + b'","kind":"rec', True),
        (b'{"hash":"' + b"0" * 64 + b'","kind":"call', False),
        (b'{"caller":"c6"', False),
        (b"", False),
    ],
)
def test_of_several_lines_only_what_began_to_account_for_the_first_is_believed(log, second, is_believed):
    lines, head = chain()
    torn = [b'{"caller":"c6","kin', second]
    recovery, last = link({"kind": "recovery", "torn": [torn_entry(line) for line in torn]}, head)
    content = b"".join([*lines, *(line + b"\n" for line in torn), recovery])
    if is_believed:
        log.write_bytes(content)
        assert (verify([log]).torn, verify([log]).head) == (2, last)
    else:
        assert broken(log, content).line == 8


def test_the_command_warns_of_each_line_that_was_cut_short_by_file_and_line(log):
    lines, head = chain()
    torn = b'{"caller":"c6","kin'
    recovery, _ = link({"kind": "recovery", "torn": [torn_entry(torn)]}, head)
    log.write_bytes(b"".join([*lines, torn + b"\n", recovery]))
    told = CliRunner().invoke(audit, ["verify", str(log)])
    assert told.exit_code == 0
    assert f"warning: {log} line 7: cut short" in told.stderr


def test_calls_that_have_no_record_of_their_own_are_added_up_as_the_log_tells_of_them(log):
    counted = [
        {"kind": "suppressed", "calls": 40},
        {"kind": "resumed", "unrecorded": 2},
        {"kind": "suppressed", "calls": 2},
    ]
    lines, _ = chain([*BODIES, *counted])
    log.write_bytes(b"".join(lines))
    found = verify([log])
    assert (found.records, found.calls, found.suppressed, found.unrecorded) == (9, 6, 42, 2)
    told = CliRunner().invoke(audit, ["verify", str(log)])
    assert "without a record of their own, as the log itself says: 42" in told.output


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"NaN\n",
        b'{"hash":1}\n',
        b'{"a":NaN}\n',
        b'{"a":1e999}\n',
        b"{" * 100_000 + b"\n",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"\n",
        b"\xff\xfe\n",
        b'{"hash":"","previous":"\\ud800","sequence":1}\n',
    ],
)
def test_what_is_no_record_is_refused(line):
    with pytest.raises(LineBroken):
        read_line(line)


def test_the_command_says_what_holds_and_where_it_breaks(log, tmp_path):
    lines, head = chain()
    log.write_bytes(b"".join(lines))
    lock = log.with_name("audit.jsonl.lock")
    lock.touch()
    runner = CliRunner()
    whole = runner.invoke(audit, ["verify", str(log), str(lock), "--expect-head", head.hash])
    assert whole.exit_code == 0
    assert f"head {head.hash}" in whole.output
    assert "whole: 6 records" in whole.output
    assert BODIES[0]["time"] in whole.output
    log.write_bytes(b"".join([lines[0], *lines[2:]]))
    found = runner.invoke(audit, ["verify", str(log)])
    assert found.exit_code == 1
    assert f"{log} line 2: record 3 stands where record 2 belongs" in found.output


def test_the_command_tells_under_which_hash_an_image_stands(tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    told = CliRunner().invoke(audit, ["image", "ab" * 32, "--audit-salt-file", str(key)])
    assert told.exit_code == 0
    assert len(told.output.strip()) == 64
    assert told.output.strip() != "ab" * 32


def test_checking_a_log_needs_neither_torch_nor_grpc():
    program = (
        "import sys, m2ib_server.sight.audit_command\n"
        "heavy = {'torch', 'onnxruntime', 'grpc', 'numpy', 'google.protobuf'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
