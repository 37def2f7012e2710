"""Owns the command `m2ib verify`: asks for a kept result once more and says whether it comes out again."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from m2ib_client._cli import options as opt
from m2ib_client._cli.connection import connect
from m2ib_client._cli.exits import ExitCode, reported_faults
from m2ib_client._errors import InvalidRequestError
from m2ib_client._recorded import ALLOWED
from m2ib_client._verification import DEFAULT_TOLERANCE, Comparison, VerdictName, Verification

EXIT_BY_VERDICT: Mapping[VerdictName, ExitCode] = MappingProxyType(
    {
        "exact": ExitCode.OK,
        "within_tolerance": ExitCode.WITHIN_TOLERANCE,
        "differs": ExitCode.DIFFERS,
    }
)
WORDS: Mapping[VerdictName, str] = MappingProxyType(
    {
        "exact": "exact: the result comes out again to the last bit",
        "within_tolerance": "within tolerance: the result comes out alike, and not to the last bit",
        "differs": "differs: the result does not come out again",
    }
)


def verify(  # noqa: PLR0913, PLR0917 - one parameter per option, as typer wants it
    context: typer.Context,
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT",
            exists=True,
            dir_okay=False,
            allow_dash=True,
            help="The JSON of `m2ib explain --json`, or results.jsonl; - reads the standard input.",
        ),
    ],
    image: opt.ImageArgument,
    text: opt.TextArgument,
    pair_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Which line of results.jsonl, by its id.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="The largest difference that passes, relative to the largest of the kept bits.")
    ] = DEFAULT_TOLERANCE,
    as_json: opt.JsonOption = False,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    local: opt.LocalOption = False,
    models: opt.ModelsOption = None,
    device: opt.DeviceOption = "cpu",
    timeout: opt.TimeoutOption = opt.DEFAULT_TIMEOUT,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Ask for a kept RESULT once more, as its provenance says, and compare it with what comes out now.

    IMAGE and TEXT are those that it was asked for with. Settings, seed, fit, frame and window are the result's own; the
    server must have the same model package, by its digest: it is asked by name and version, whatever the bare name
    leads to, and no other package's answer is compared. Exit codes: 0 exact, 8 within the tolerance, 9 different.
    """
    with reported_faults():
        kept = read_kept(result, pair_id)
        with connect(context) as client:
            verification = client.verify(kept, image, text, tolerance=tolerance)
    if as_json:
        typer.echo(json.dumps(verification.to_dict(), ensure_ascii=False, allow_nan=False))
    else:
        for line in verification_lines(verification):
            typer.echo(line)
    raise typer.Exit(EXIT_BY_VERDICT[verification.verdict])


def read_kept(file: Path, pair_id: str | None) -> Mapping[str, Any]:
    """Return the result that a file holds; of a file with a result in each line the last one of that id.

    Raises:
        InvalidRequestError: there is none, or more than one and no id.
    """
    content = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8", errors="replace")
    try:
        whole = json.loads(content)
    except ValueError:
        whole = None
    kept = [whole] if whole is not None else list(_lines(content))
    found = [each for each in kept if isinstance(each, dict) and (pair_id is None or each.get("id") == pair_id)]
    if not found:
        raise InvalidRequestError.of("result", seen="none, or none of that id", allowed=ALLOWED)
    if len(found) > 1 and pair_id is None:
        raise InvalidRequestError.of("result", seen=f"{len(found)} results", allowed="one of them, by --id")
    return found[-1]


def verification_lines(verification: Verification) -> Iterator[str]:
    """Yield the report: the verdict, what was compared, and what is not the same about how it came about."""
    asked = verification.replayed.provenance
    yield WORDS[verification.verdict]
    yield f"package    {asked.model} version {asked.version}, digest {asked.digest}"
    yield f"image      {'the same' if verification.same_image else 'another one: its SHA-256 differs'}"
    yield f"text       {_same_text(verification.same_text)}"
    yield f"similarity differs by {verification.similarity_difference:.2g}"
    for name, compared in (("map", verification.grid), ("tokens", verification.tokens)):
        if compared is not None:
            yield f"{name:<10} {_compared(compared)}"
    if verification.verdict != "exact":
        yield f"tolerance  {verification.tolerance:g} of the largest value"
    for name, (then, now) in verification.provenance_differences.items():
        yield f"{name}: then {then or 'not there'}, now {now or 'not there'}"
    if verification.provenance_differences and verification.verdict != "exact":
        yield "Another device or version may round otherwise; the same bits can be expected from the same ones only."


def _same_text(is_same: bool | None) -> str:
    if is_same is None:
        return "not compared: the result tells nothing of it"
    return "the same" if is_same else "another one"


def _compared(compared: Comparison) -> str:
    rank = "none" if compared.rank_correlation is None else f"{compared.rank_correlation:.6f}"
    share = f"{compared.relative_difference:.2g} of the largest"
    return f"differ by at most {compared.max_abs_difference:.2g} bits, {share}; rank correlation {rank}"


def _lines(content: str) -> Iterator[Any]:
    """Yield what each line holds; one that was cut off holds nothing."""
    for line in content.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
