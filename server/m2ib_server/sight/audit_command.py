"""The command line `m2ib-server audit`: checks the log's chain, and tells under which name an image stands in it."""

from pathlib import Path
from typing import Annotated

import typer

from m2ib_server.sight.audit_chain import START
from m2ib_server.sight.audit_key import image_hash
from m2ib_server.sight.audit_verify import ChainBroken, Finding
from m2ib_server.sight.audit_verify import verify as verify_chain

EXIT_BROKEN = 1

audit = typer.Typer(help="Look into the audit log that `serve --audit-log` writes.", no_args_is_help=True)


def _digest(value: str | None) -> str | None:
    if value is not None and (len(value) != 64 or set(value) - set("0123456789abcdef")):
        raise typer.BadParameter(f"seen {len(value)} characters; allowed: 64 lower-case hexadecimal digits")
    return value


@audit.command()
def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", exists=True, dir_okay=False, help="The log and its earlier parts, such as audit.jsonl*."
        ),
    ],
    expect_head: Annotated[
        str | None, typer.Option(callback=_digest, help="A hash that was noted earlier and must be in the chain.")
    ] = None,
    after: Annotated[
        str, typer.Option(callback=_digest, help="The hash of the last record in the parts that are kept elsewhere.")
    ] = START.hash,
) -> None:
    """Check that no record was changed, removed, added or moved.

    Prints how many records there are, from when to when, and the head: the last record's hash. Whoever notes the head
    elsewhere and gives it later to --expect-head also knows that nothing is missing at the end. Warns of each line that
    a crash cut short: what it was is not known. Exit code 1: the chain is broken; then the first line at fault and what
    is wrong with it.
    """
    logs = [file for file in files if file.suffix != ".lock"]  # the shell's audit.jsonl* names the lock too
    try:
        finding = verify_chain(logs, after=after, expect_head=expect_head)
    except ChainBroken as error:
        typer.echo(f"broken: {_place(error)}{error}", err=True)
        raise typer.Exit(EXIT_BROKEN) from None
    except OSError as error:
        typer.echo(f"m2ib-server: a file cannot be read: {error.strerror}", err=True)
        raise typer.Exit(EXIT_BROKEN) from None
    for file, number in finding.torn_lines:
        typer.echo(
            f"warning: {file} line {number}: cut short, as by a crash or a full disk, and accounted for", err=True
        )
    for line in _lines(finding, len(logs)):
        typer.echo(line)


@audit.command()
def image(
    sha256: Annotated[
        str, typer.Argument(metavar="SHA256", callback=_digest, help="An image's SHA-256, as an answer's provenance.")
    ],
    audit_salt_file: Annotated[
        Path, typer.Option(envvar="M2IB_AUDIT_SALT_FILE", exists=True, dir_okay=False, help="The log's key file.")
    ],
) -> None:
    """Print the hash under which an image stands in the log."""
    typer.echo(image_hash(sha256, audit_salt_file.read_bytes()))


def _place(error: ChainBroken) -> str:
    if error.file is None:
        return ""
    return f"{error.file}: " if not error.line else f"{error.file} line {error.line}: "


def _lines(finding: Finding, files: int) -> list[str]:
    told = [
        f"whole: {finding.records} records, {finding.calls} of them calls, in {files} files",
        f"from {finding.first_time} to {finding.last_time}" if finding.records else "no record yet",
        f"head {finding.head.hash}",
    ]
    if finding.suppressed:
        without = "calls refused for want of credentials without a record of their own"
        told.append(f"{without}, as the log itself says: {finding.suppressed}")
    if finding.unrecorded:
        told.append(f"calls that could not be recorded, as the log itself says: {finding.unrecorded}")
    if finding.torn:
        told.append(f"lines that a crash cut short, each accounted for: {finding.torn}")
    return told
