"""The command line of the demo model: make phantoms, train, choose settings, evaluate, or locate the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import numpy as np
import typer
from PIL import Image

from m2ib_export.demo import CHECKPOINT
from m2ib_export.demo.dicom import write_dicom
from m2ib_export.demo.finding import Finding, Kind, sample_finding
from m2ib_export.demo.phantom import SMALLEST_SIDE, render_film
from m2ib_export.demo.phrase import NORMAL_PHRASES, plain_phrase

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
FINDING_SEED_STREAM = 17
Setting: TypeAlias = Literal["channel", "token", "channel_paper"]
Part: TypeAlias = Literal["localisation", "absent_phrase", "two_findings", "wording"]


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="File to write: .dcm or .png.")],
    seed: Annotated[int, typer.Option(min=0, max=99_999_999, help="Decides all of the film.")] = 0,
    size: Annotated[int, typer.Option(min=SMALLEST_SIDE, max=4096, help="Rows of the film.")] = 1024,
    columns: Annotated[int | None, typer.Option(min=SMALLEST_SIDE, max=4096, help="As many as rows.")] = None,
    finding: Annotated[list[Kind] | None, typer.Option(help="Kind of finding; repeat for several.")] = None,
    normal: Annotated[bool, typer.Option("--normal", help="A film without findings.")] = False,
    monochrome1: Annotated[bool, typer.Option("--monochrome1", help="Bones dark (DICOM only).")] = False,
    mask_out: Annotated[Path | None, typer.Option(help="Write the findings' mask as a PNG.")] = None,
) -> None:
    """Write one phantom film and print a phrase for each of its findings."""
    findings = () if normal else chosen_findings(seed, finding or [])
    film = render_film(seed, (size, columns or size), findings)
    if out.suffix == ".dcm":
        write_dicom(out, film, inverted=monochrome1)
    elif out.suffix == ".png" and not monochrome1:
        Image.fromarray(film.pixels_u8).save(out)
    else:
        raise typer.BadParameter("the file must end in .dcm or .png, and --monochrome1 needs .dcm")
    if mask_out is not None:
        mask = np.any(film.masks, axis=0) if film.masks else np.zeros(film.pixels.shape, bool)
        Image.fromarray(mask.astype(np.uint8) * 255).save(mask_out)
    for shown in film.findings:
        typer.echo(plain_phrase(shown))
    if not film.findings:
        typer.echo(NORMAL_PHRASES[0])


def chosen_findings(seed: int, kinds: list[Kind]) -> tuple[Finding, ...] | None:
    """Findings of the kinds asked for, side and zone drawn from the seed; None leaves all to the seed."""
    if not kinds:
        return None
    rng = np.random.default_rng([seed, FINDING_SEED_STREAM])
    found: list[Finding] = []
    for kind in kinds:
        choices = [sample_finding(kind, rng) for _ in range(32)]
        free = [choice for choice in choices if choice.territory not in {other.territory for other in found}]
        if not free:
            raise typer.BadParameter(f"no room left for another finding of kind {kind.value}")
        found.append(free[0])
    return tuple(found)


@app.command()
def train(
    films: Annotated[Path, typer.Option(help="Folder for the rendered films, about 700 MB.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
    log: Annotated[Path, typer.Option(help="File that gets the log as JSON lines.")],
    minutes: Annotated[float, typer.Option(help="Longest time to train.")] = 72.0,
    start: Annotated[Path | None, typer.Option(help="Checkpoint to continue from.")] = None,
) -> None:
    """Train the model anew from phantoms."""
    from m2ib_export.demo.train import TrainingPlan
    from m2ib_export.demo.train import train as run

    run(TrainingPlan(minutes=minutes), films, out, log, start)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint to measure.")] = CHECKPOINT,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = Path("evaluation.json"),
    films: Annotated[int, typer.Option(min=100, help="Test films.")] = 500,
    setting: Annotated[
        Setting | None, typer.Option(help="Measure this setting anew and keep the other figures of --out.")
    ] = None,
    part: Annotated[
        Part | None, typer.Option(help="Measure this part anew and keep the other figures of --out.")
    ] = None,
    sweep: Annotated[Path | None, typer.Option(help="What `select` wrote, for the card.")] = None,
    card: Annotated[Path | None, typer.Option(help="Model card to write; needs --sweep.")] = None,
) -> None:
    """Measure retrieval and localisation on held-out phantoms."""
    from m2ib_export.demo.card import write_card
    from m2ib_export.demo.evaluate import PARTS, evaluate_again, evaluate_checkpoint

    if (card is None) != (sweep is None):
        raise typer.BadParameter("--card and --sweep go together")
    if setting is None and part is None:
        evaluate_checkpoint(checkpoint, out, films)
    else:
        evaluate_again(checkpoint, out, [setting] if setting else get_args(Setting), [part] if part else PARTS)
    if card is not None and sweep is not None:
        write_card(card, out, sweep, checkpoint)


@app.command()
def select(
    out: Annotated[Path, typer.Option(help="File for the sweep as JSON lines.")],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint to try.")] = CHECKPOINT,
    films: Annotated[int, typer.Option(min=1, help="Validation films of two findings.")] = 48,
    rows: Annotated[int, typer.Option(min=1, help="Noise rows a step.")] = 5,
) -> None:
    """Try every block and beta of the bottleneck on validation phantoms."""
    from m2ib_export.demo.selection import sweep

    sweep(checkpoint, out, films, rows)


@app.command()
def path() -> None:
    """Print the folder of the checkpoint."""
    typer.echo(CHECKPOINT)


if __name__ == "__main__":
    app()
