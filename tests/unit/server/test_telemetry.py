import io
import json
import logging
import sys
import warnings

import pytest

from m2ib_server.telemetry import FIELDS, configure_log, log_event, origin_of

SECRET = "Zebrafinch"


@pytest.fixture
def log():
    root, ours = logging.getLogger(), logging.getLogger("m2ib_server")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    stream = io.StringIO()
    configure_log(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.captureWarnings(False)
    root.handlers[:], root.level, ours.level, logging.raiseExceptions = before


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
