import io
import json
import logging
import subprocess
import sys
import threading
import warnings

import pytest

from m2ib_server.telemetry import FIELDS, configure_log, log_event, origin_of

SECRET = "Zebrafinch"
SECONDS = 60
DIES = f"""
import gc, threading
from m2ib_server.telemetry import configure_log
configure_log()
def fall(*_):
    raise KeyError("{SECRET}")
class Falling:
    __del__ = fall
class Linked:
    def __init__(self):
        self.fallen = Falling()
        self.itself = self
"""


@pytest.fixture
def log():
    root, ours = logging.getLogger(), logging.getLogger("m2ib_server")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    hooks = threading.excepthook, sys.unraisablehook
    stream = io.StringIO()
    configure_log(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.captureWarnings(False)
    root.handlers[:], root.level, ours.level, logging.raiseExceptions = before
    threading.excepthook, sys.unraisablehook = hooks


def test_an_event_is_one_line_of_its_allowed_fields(log):
    log_event("call ended", request_id="abc", seconds=1.5)
    (line,) = log()
    assert {name: line[name] for name in ("level", "event", "request_id", "seconds")} == {
        "level": "INFO",
        "event": "call ended",
        "request_id": "abc",
        "seconds": 1.5,
    }
    assert line["time"].endswith("Z")


@pytest.mark.parametrize("name", ["text", "image", "patient", "PatientName", "message", "path"])
def test_a_field_that_is_not_allowed_is_a_fault_of_ours(log, name):
    assert name not in FIELDS
    with pytest.raises(ValueError, match=name):
        log_event("call ended", **{name: SECRET})
    assert log() == []


def test_what_a_library_says_is_not_repeated(log):
    logging.getLogger("pydicom").error("PatientName is %s", SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("grpc").exception(SECRET)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(SECRET, stacklevel=1)
    lines = log()
    assert [line["origin"] for line in lines] == ["pydicom", "grpc", "py.warnings"]
    assert all(line["event"] == "foreign" for line in lines)
    assert SECRET not in json.dumps(lines)


def test_an_origin_names_places_and_no_values(log):
    try:
        int(SECRET)
    except ValueError as error:
        place = origin_of(error)
    assert place.startswith("test_telemetry.py:")
    assert SECRET not in place
    assert sys.argv[0] not in place


@pytest.mark.parametrize(
    ("program", "event"),
    [
        ("thread = threading.Thread(target=fall, name='Zebrafinch'); thread.start(); thread.join()", "thread died"),
        ("Falling()", "fault that nobody could be told of"),
        ("Linked(); gc.collect()", "fault that nobody could be told of"),
    ],
    ids=["a thread", "a finaliser", "the collector"],
)
def test_of_a_fault_outside_every_handler_only_type_and_place_are_told(program, event):
    done = subprocess.run(
        [sys.executable, "-c", DIES + program], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["level"], line["event"], line["error_type"]) == ("ERROR", event, "KeyError")
    assert line["origin"].endswith("<string>:6")
    assert SECRET not in done.stderr + done.stdout


def test_a_thread_that_ends_itself_is_no_fault():
    program = DIES + "thread = threading.Thread(target=lambda: exit(3)); thread.start(); thread.join()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
