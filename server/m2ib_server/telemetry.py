"""Owns the log: one JSON object a line, made of fields on an allow-list. No text, pixel or identifier has a way in."""

import json
import logging
import sys
import threading
import time
from typing import TextIO

FIELDS = frozenset(
    {
        "address",
        "answered",
        "cache_hits",
        "cache_misses",
        "caller",
        "callers",
        "calls",
        "cancelled",
        "code",
        "device",
        "digest",
        "error_type",
        "expired",
        "failed",
        "grace_seconds",
        "head",
        "method",
        "model",
        "origin",
        "partial",
        "reason",
        "records",
        "refused",
        "request_id",
        "rows",
        "running",
        "seconds",
        "shared",
        "threads",
        "torn",
        "trace_id",
        "unrecorded",
        "upload_bytes",
        "uploads",
        "version",
        "waiting",
    }
)

_LOGGER = logging.getLogger("m2ib_server")


class JsonLines(logging.Formatter):
    """Formats a record as its time, level, event and allowed fields; a record's own message is never formatted."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON; a record that is not ours shows where it came from and nothing else."""
        fields = getattr(record, "m2ib_fields", None)
        event = getattr(record, "m2ib_event", "foreign")
        origin = {"origin": record.name} if fields is None else {}
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        stamp = f"{when}.{int(record.msecs):03d}Z"
        return json.dumps({"time": stamp, "level": record.levelname, "event": event, **origin, **(fields or {})})


def configure_log(stream: TextIO = sys.stderr) -> None:
    """Send every record of this process, those of libraries included, through the allow-list to `stream`.

    So go the faults that Python itself would print with their text: of threads that die, of finalisers.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _LOGGER.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    threading.excepthook = _thread_died
    sys.unraisablehook = _unraisable


def log_event(event: str, *, level: int = logging.INFO, **fields: str | int | float) -> None:
    """Log an event of ours.

    Raises:
        ValueError: a field is not on the allow-list.
    """
    if unknown := fields.keys() - FIELDS:
        raise ValueError(f"not on the log's allow-list: {', '.join(sorted(unknown))}")
    _LOGGER.log(level, event, extra={"m2ib_event": event, "m2ib_fields": fields})


def origin_of(error: BaseException) -> str:
    """Return where an exception was raised, as `file.py:line` of each frame, innermost last, without any value."""
    places, trace = [], error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename.rsplit("/", 1)[-1]
        places.append(f"{name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(places)


def _thread_died(told: threading.ExceptHookArgs) -> None:
    if not issubclass(told.exc_type, SystemExit):  # a thread may end itself
        _log_fault("thread died", told.exc_type, told.exc_value)


def _unraisable(told: "sys.UnraisableHookArgs") -> None:
    _log_fault("fault that nobody could be told of", told.exc_type, told.exc_value)


def _log_fault(event: str, kind: type[BaseException], error: BaseException | None) -> None:
    origin = "" if error is None else origin_of(error)
    log_event(event, level=logging.ERROR, error_type=kind.__name__, origin=origin)
