"""Owns the commands of `m2ib`: reads the options, makes the call, prints the answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

import m2ib_client
from m2ib_client._cli import options as opt
from m2ib_client._cli.bench import BENCH_EPILOG, bench
from m2ib_client._cli.connection import connect
from m2ib_client._cli.exits import EXIT_CODES_HELP, reported_faults
from m2ib_client._cli.many import explain_many
from m2ib_client._cli.models import models_app
from m2ib_client._cli.printing import print_json, print_lines
from m2ib_client._cli.progress import followed
from m2ib_client._cli.report import explanation_lines, score_lines
from m2ib_client._cli.security import secured
from m2ib_client._cli.verify import verify
from m2ib_client._options import SideName
from m2ib_client._results import Explanation

app = typer.Typer(
    help="Ask why a CLIP-like model matches an image and a text, over an M2IB attribution server.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    # A traceback with local variables would print the caller's text.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"m2ib {m2ib_client.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Read the options that stand before the command."""


@app.command(epilog=EXIT_CODES_HELP)
@secured
def explain(  # noqa: PLR0913, PLR0917 - one parameter per option, as typer wants it
    context: typer.Context,
    image: opt.ImageArgument,
    text: opt.TextArgument,
    overlay: opt.OverlayOption = None,
    as_json: opt.JsonOption = False,
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
    on_deadline: opt.OnDeadlineOption = None,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    local: opt.LocalOption = False,
    models: opt.ModelsOption = None,
    device: opt.DeviceOption = "cpu",
    timeout: opt.TimeoutOption = opt.DEFAULT_TIMEOUT,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Show which parts of IMAGE and of TEXT made the model match them.

    The words are coloured by the information that each lets through, in bits; the overlay shows the same for
    the image. An explanation exists for any text, also for a wrong one: mind the warning about the
    similarity.
    """
    sides = cast("Sequence[SideName]", only or tuple(opt.SideChoice))
    _check_overlay(overlay, sides)
    with (
        reported_faults(),
        connect(context) as client,
    ):
        events = client.explain_stream(
            image,
            text,
            model=model,
            sides=sides,
            effort=effort,
            beta=beta,
            text_beta=text_beta,
            steps=steps,
            samples=samples,
            learning_rate=learning_rate,
            mask_shape=mask,
            text_mask_shape=text_mask_shape,
            seed=seed,
            repeats=repeats,
            fit=fit,
            outputs=("overlay",) if overlay else (),
            truncate_text=truncate,
            frame=frame,
            window=window,
            priority=priority,
            on_deadline=on_deadline,
        )
        explanation = followed(events)
        if as_json:
            typer.echo(explanation.to_json())
        else:
            print_lines(explanation_lines(explanation, text))
        if overlay is not None:
            _write_overlay(explanation, overlay)


app.command(epilog=EXIT_CODES_HELP)(secured(explain_many))
app.command(epilog=BENCH_EPILOG)(secured(bench))
app.command(epilog=EXIT_CODES_HELP)(secured(verify))


@app.command(epilog=EXIT_CODES_HELP)
@secured
def score(  # noqa: PLR0913, PLR0917 - one parameter per option, as typer wants it
    context: typer.Context,
    images: opt.ImagesArgument,
    texts: opt.TextsOption,
    as_json: opt.JsonOption = False,
    model: opt.ModelOption = "",
    truncate: opt.TruncateOption = False,
    fit: opt.FitOption = None,
    frame: opt.FrameOption = None,
    window: opt.WindowOption = None,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    local: opt.LocalOption = False,
    models: opt.ModelsOption = None,
    device: opt.DeviceOption = "cpu",
    timeout: opt.TimeoutOption = opt.DEFAULT_TIMEOUT,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Show how well every IMAGE matches every TEXT: cosine similarities, from -1 to 1."""
    with (
        reported_faults(),
        connect(context) as client,
    ):
        scores = client.score(images, texts, model=model, fit=fit, truncate_text=truncate, frame=frame, window=window)
        names = [str(image) for image in images]
        if as_json:
            print_json({"images": names, "texts": texts, **scores.to_dict()})
        else:
            print_lines(score_lines(scores, names, texts))


app.add_typer(models_app, name="models", epilog=EXIT_CODES_HELP)


def _check_overlay(overlay: Path | None, sides: Sequence[SideName]) -> None:
    """Refuse before the work what could not be written after it."""
    if overlay is None:
        return
    if overlay.suffix.lower() != ".png":
        raise typer.BadParameter("the overlay is a PNG; name a file that ends in .png", param_hint="--overlay")
    if not overlay.parent.is_dir():
        raise typer.BadParameter("there is no such folder to write to", param_hint="--overlay")
    if "image" not in sides:
        raise typer.BadParameter("an overlay needs the image side", param_hint="--overlay")


def _write_overlay(explanation: Explanation, overlay: Path) -> None:
    explanation.overlay().save(overlay, format="PNG")
    typer.echo(f"overlay written to {overlay}", err=True)
