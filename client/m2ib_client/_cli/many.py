"""Owns the command `m2ib explain-many`: pairs from a file, results into a folder, in a way that can be run again."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import typer

from m2ib_client._cli import options as opt
from m2ib_client._cli.connection import connect
from m2ib_client._cli.exits import ExitCode, reported_faults
from m2ib_client._cli.pairs import Row, read_rows
from m2ib_client._cli.results import ResultsFolder
from m2ib_client._client import Client
from m2ib_client._many.pair import ManyResult, Pair
from m2ib_client._options import ExplainOptions, SideName
from m2ib_client._plain import PlainValue, plain


def explain_many(  # noqa: PLR0913, PLR0917 - one parameter per option, as typer wants it
    context: typer.Context,
    pairs: opt.PairsArgument,
    out: opt.OutOption,
    overlays: opt.OverlaysOption = False,
    force: opt.ForceOption = False,
    model: opt.ModelOption = "",
    only: opt.SidesOption = None,
    truncate: opt.TruncateOption = False,
    effort: opt.EffortOption = None,
    mask: opt.MaskOption = None,
    text_mask_shape: opt.TextMaskOption = None,
    beta: opt.BetaOption = None,
    text_beta: opt.TextBetaOption = None,
    steps: opt.StepsOption = None,
    samples: opt.SamplesOption = None,
    learning_rate: opt.LearningRateOption = None,
    seed: opt.SeedOption = None,
    repeats: opt.RepeatsOption = None,
    fit: opt.FitOption = None,
    frame: opt.FrameOption = None,
    window: opt.WindowOption = None,
    priority: opt.PriorityOption = None,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    local: opt.LocalOption = False,
    models: opt.ModelsOption = None,
    device: opt.DeviceOption = "cpu",
    timeout: opt.TimeoutOption = opt.DEFAULT_TIMEOUT,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Explain every pair of the file PAIRS; write a line of JSON for each to DIR/results.jsonl as it is done.

    Run it again after an interruption or a failure: pairs that have an explanation with the same settings are
    passed over. The timeout is how long the server may answer none of the pairs.
    """
    options: ExplainOptions = {
        "model": model,
        "sides": cast("Sequence[SideName]", [str(side) for side in only or opt.SideChoice]),
        "effort": effort,
        "beta": beta,
        "text_beta": text_beta,
        "steps": steps,
        "samples": samples,
        "learning_rate": learning_rate,
        "mask_shape": mask,
        "text_mask_shape": text_mask_shape,
        "seed": seed,
        "repeats": repeats,
        "fit": fit,
        "outputs": ("overlay",) if overlays else (),
        "priority": priority,
        "truncate_text": truncate,
        "frame": frame,
        "window": window,
    }
    if overlays and "image" not in options["sides"]:
        raise typer.BadParameter("overlays need the image side", param_hint="--overlays")
    rows = read_rows(pairs)
    with reported_faults(), closing(ResultsFolder(out, _told(options))) as results:
        due = results.open(rows, force=force)
        with connect(context) as client:
            failed = _explain(client, pairs.parent, due, results, options)
        done = len(due) - failed
        typer.echo(
            f"{done} explained, {failed} failed, {len(rows) - len(due)} passed over; results in {results.file}",
            err=True,
        )
    if failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _explain(client: Client, folder: Path, due: Sequence[Row], results: ResultsFolder, options: ExplainOptions) -> int:
    """Write the rows' results as they come; return how many failed."""
    pairs = [Pair(folder / row.image, row.text, row.id) for row in due]
    failed = 0
    for row, result in _matched(due, client, pairs, options):
        results.write(row, result, overlay="overlay" in options["outputs"])
        failed += result.error is not None
    return failed


def _matched(
    due: Sequence[Row], client: Client, pairs: Sequence[Pair], options: ExplainOptions
) -> Iterator[tuple[Row, ManyResult]]:
    with closing(client.explain_many(pairs, ordered=False, progress=True, **options)) as results:
        for result in results:
            yield due[result.index], result


def _told(options: ExplainOptions) -> dict[str, PlainValue]:
    """Return the options that have a say in what a result holds, for its line."""
    told = cast("dict[str, PlainValue]", plain(options))
    return {name: value for name, value in told.items() if name != "priority" and value not in (None, "", False)}
