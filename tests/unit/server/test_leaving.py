"""The process ends although a thread hangs that an orderly end would wait for."""

import json
import subprocess
import sys

import pytest

SECONDS = 60
BEGIN = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from m2ib_server.__main__ import _leave, main
from m2ib_server.telemetry import configure_log
configure_log()
"""
STRANGER = "threading.Thread(target=threading.Event().wait, name='a runtime').start()\n"
OURS = "threading.Thread(target=threading.Event().wait, name='m2ib-engine', daemon=True).start()\n"
DAEMON = "threading.Thread(target=threading.Event().wait, name='a poller', daemon=True).start()\n"
FINISHING = "pool = ThreadPoolExecutor(); pool.submit(time.sleep, 0.2); pool.shutdown(wait=False)\n"


def ended(program, *arguments):
    command = [sys.executable, "-c", BEGIN + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    left = [json.loads(line) for line in done.stderr.splitlines() if "threads left behind" in line]
    return done.returncode, [line["threads"] for line in left]


@pytest.mark.parametrize(
    ("threads", "left"),
    [(STRANGER, [1]), (OURS, [1]), (OURS + STRANGER + DAEMON, [2])],
    ids=["a runtime's", "ours", "both"],
)
def test_a_thread_that_hangs_keeps_no_process_from_ending(threads, left):
    assert ended(threads + "_leave(3); raise SystemExit(4)") == (3, left)


@pytest.mark.parametrize("threads", ["", DAEMON, FINISHING], ids=["none", "a daemon", "one that ends by itself"])
def test_threads_that_an_orderly_end_is_done_with_get_one(threads):
    assert ended(threads + "_leave(3); raise SystemExit(4)") == (4, [])


def test_the_command_that_serves_leaves_so(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("no line of a token file\n")
    command = ["serve", "--models", str(tmp_path), "--listen", "127.0.0.1:0", "--tokens", str(tokens)]
    assert ended(STRANGER + "main()", *command) == (3, [1])


def test_a_fault_that_nobody_foresaw_ends_it_too_and_its_text_is_told_nobody(tmp_path):
    program = f"""
from pathlib import Path
from m2ib_server.__main__ import _run
from m2ib_server.settings import ServerSettings
from m2ib_server.telemetry import configure_log
configure_log()
raise SystemExit(_run(ServerSettings(models=Path({str(tmp_path)!r}), listen="", device="zebrafinch", threads=1)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["event"], line["error_type"]) == ("ended by a fault", "ValueError")
    assert "zebrafinch" not in done.stderr
