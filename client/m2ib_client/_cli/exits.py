"""Owns the exit codes of `m2ib` and the words in which it reports a fault, on the standard error."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from types import MappingProxyType

import typer

from m2ib_client import _errors


class ExitCode(IntEnum):
    """What the command ends with."""

    OK = 0
    FAULT = 1
    USAGE = 2
    INVALID = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    DEADLINE = 6
    SOME_FAILED = 7
    WITHIN_TOLERANCE = 8
    DIFFERS = 9


EXIT_CODES_HELP = (
    "Exit codes: 0 done; 1 a fault of the server or of this machine; 2 the command line is wrong; "
    "3 the image, the text or a setting is not allowed; 4 there is no such model; "
    "5 the server cannot be reached, is busy or did not start; 6 the timeout passed; "
    "7 of many pairs some or all failed, the others are done; "
    "8 a verified result comes out alike, within the tolerance, and not to the last bit; 9 it comes out differently."
)

EXIT_BY_ERROR: Mapping[type[_errors.M2IBError], ExitCode] = MappingProxyType(
    {
        _errors.M2IBError: ExitCode.FAULT,
        _errors.InvalidRequestError: ExitCode.INVALID,
        _errors.NotFoundError: ExitCode.NOT_FOUND,
        _errors.AccessError: ExitCode.FAULT,
        _errors.TransientError: ExitCode.UNAVAILABLE,
        _errors.BusyError: ExitCode.UNAVAILABLE,
        _errors.UnavailableError: ExitCode.UNAVAILABLE,
        _errors.DeadlineError: ExitCode.DEADLINE,
        _errors.CallCancelledError: ExitCode.UNAVAILABLE,
        _errors.ServerError: ExitCode.FAULT,
        _errors.IncompatibleServerError: ExitCode.FAULT,
        _errors.LocalServerError: ExitCode.UNAVAILABLE,
        _errors.MissingPackageError: ExitCode.FAULT,
        _errors.OutputMissingError: ExitCode.FAULT,
        _errors.ClosedError: ExitCode.FAULT,
    }
)


@contextmanager
def reported_faults() -> Iterator[None]:
    """Report a fault in one or two lines and exit with its code, instead of a traceback."""
    try:
        yield
    except _errors.M2IBError as error:
        for line in fault_lines(error):
            typer.echo(line, err=True)
        raise typer.Exit(EXIT_BY_ERROR[type(error)]) from None
    except OSError as error:
        typer.echo(f"m2ib: a file cannot be read or written: {error.strerror}", err=True)
        raise typer.Exit(ExitCode.FAULT) from None


def fault_lines(error: _errors.M2IBError) -> Iterator[str]:
    """Yield what to print: the fault, and what to do about it where that is known."""
    yield f"m2ib: {error}"
    if isinstance(error, _errors.UnavailableError):
        yield "Is a server running there? `--server HOST:PORT` names it; `--local --models DIR` starts one."
    if isinstance(error, _errors.TransientError) and error.retry_after_seconds is not None:
        yield f"Try again in {error.retry_after_seconds:g} s."
    if isinstance(error, _errors.DeadlineError):
        yield "`--timeout SECONDS` gives it more time."
    if error.request_id:
        yield f"The server's log has more under request {error.request_id}."
