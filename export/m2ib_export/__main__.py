"""Owns the command line of `m2ib-export`: arguments, progress and exit codes."""

from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console
from rich.table import Table

from m2ib.v1 import manifest_pb2
from m2ib_export.errors import ExportError, OutputExists, OutputInvalid, ParityMissed
from m2ib_export.precision import Precision
from m2ib_export.progress import StageProgress

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


CheckpointArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A directory with a Hugging Face CLIPModel checkpoint, a model name of the Hugging Face hub "
        "(downloaded), or the word [bold]demo[/bold] for the small built-in model.",
    ),
]
VisionLayerOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="The image encoder's block, counted from 0, at whose output the bottleneck sits. "
        "Default: two blocks of twelve follow it, as in the M2IB paper."
    ),
]
ReferenceTextsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="The texts against which a similarity is ranked: general, radiology, or a file with one "
        "text a line. Default: general."
    ),
]
PrecisionOption: TypeAlias = Annotated[
    Precision,
    typer.Option(
        help="What products of matrices are evaluated in; all else stays fp32. fp16 and bf16 halve the weights and "
        "are meant for GPUs; a CPU computes the same, slower than fp32. The final maps have to agree with fp32's."
    ),
]


class ExitCode(IntEnum):
    """What the program's end tells the shell; 2 is a command line that cannot be parsed."""

    DONE = 0
    INVALID_INPUT = 1
    PARITY_MISSED = 3
    OUTPUT_REFUSED = 4


@app.command()
def export(
    checkpoint: CheckpointArgument,
    out_dir: Annotated[
        Path, typer.Argument(metavar="OUT_DIR", help="The package directory to make; it must not exist yet.")
    ],
    vision_layer: VisionLayerOption = None,
    text_layer: Annotated[int | None, typer.Option(help="The same for the text encoder.")] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name for requests. Default: made from CHECKPOINT.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="The model's version for requests. Default: 1.")] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            help="How images become square by default: letterbox, centre_crop or stretch. "
            "Default: letterbox, which cuts nothing off."
        ),
    ] = None,
    reference_texts: ReferenceTextsOption = None,
    precision: PrecisionOption = Precision.FP32,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT_DIR if it exists.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the arithmetic.")] = 2,
) -> None:
    """Export a CLIP checkpoint as a model package for the M2IB server.

    The package holds six ONNX graphs (for each encoder: the part before the bottleneck, the part after it, and the
    gradient of the part after it), the weights, the tokeniser and a manifest. The graphs are compared with the
    original model; a package that differs is not written. A file m2ib.json beside the checkpoint can give the
    defaults of all options.
    """
    from m2ib_export.exporter import Export
    from m2ib_export.exporter import export as run

    options: dict[str, str | int | None] = {
        "vision_layer": vision_layer,
        "text_layer": text_layer,
        "name": name,
        "version": version,
        "fit": fit,
        "reference_texts": reference_texts,
    }
    task = Export(
        checkpoint=checkpoint,
        output=out_dir,
        options=options,
        precision=precision,
        is_replacing=force,
        threads=threads,
    )
    _report(_watched(lambda on_stage: run(task, on_stage)), out_dir)


def _watched(run: Callable[[Callable[[str], None]], manifest_pb2.Manifest]) -> manifest_pb2.Manifest:
    """Show the stages of an export; end the program with the exit code of its fault."""
    console = Console(stderr=True)
    try:
        with StageProgress(console) as progress:
            return run(progress.start)
    except ExportError as error:
        console.print(f"m2ib-export: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(exit_code(error)) from None


def exit_code(error: ExportError) -> ExitCode:
    """Tell the shell what kind of fault ended the export."""
    if isinstance(error, ParityMissed):
        return ExitCode.PARITY_MISSED
    is_about_output = isinstance(error, OutputExists | OutputInvalid)
    return ExitCode.OUTPUT_REFUSED if is_about_output else ExitCode.INVALID_INPUT


def _report(manifest: manifest_pb2.Manifest, out_dir: Path) -> None:
    table = Table(title="Parity with the original model", title_justify="left")
    for heading in ("figure", "relative error", "allowed below"):
        table.add_column(heading)
    for figure in manifest.parity:
        table.add_row(figure.name, f"{figure.relative_error:.2e}", f"{figure.threshold:g}")
    console = Console()
    console.print(table)
    megabytes = sum(file.size_bytes for file in manifest.files) / 1e6
    text = f"{manifest.name}, version {manifest.version}: {len(manifest.files)} files, {megabytes:.1f} MB in {out_dir}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
