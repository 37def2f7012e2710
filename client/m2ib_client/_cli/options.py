"""Owns the options of `m2ib`: their names, their help and how their values are read."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from m2ib_client._channel import CEILING_MESSAGE_BYTES, DEFAULT_TIMEOUT_SECONDS, MAX_MESSAGE_BYTES, MEBIBYTE
from m2ib_client._options import EffortName, FitName, MaskName, OnDeadlineName, PriorityName, Window


class SideChoice(StrEnum):
    """The sides, in a form that typer takes in a list."""

    IMAGE = "image"
    TEXT = "text"


DEFAULT_SERVER = "127.0.0.1:50051"
SERVER_PANEL = "Which server"
SETTINGS_PANEL = "Settings of the method (unset: the model's defaults, see `m2ib models`)"
IMAGE_PANEL = "How the image is read"


def read_window(text: str) -> Window:
    """Return the window that `CENTRE,WIDTH` names."""
    centre, _, width = text.partition(",")
    try:
        return Window(float(centre), float(width))
    except ValueError:
        raise typer.BadParameter("expected two numbers, CENTRE,WIDTH, such as -600,1500") from None


def _readable_file(help_text: str, metavar: str) -> object:
    return typer.Argument(metavar=metavar, help=help_text, exists=True, dir_okay=False, readable=True)


IMAGE_HELP = (
    "PNG, JPEG, TIFF, WebP or DICOM. Of DICOM no identifiers are sent, only pixels and their description; other files "
    "are sent as they are, with whatever EXIF, XMP or text they hold."
)

ImageArgument: TypeAlias = Annotated[Path, _readable_file(IMAGE_HELP, "IMAGE")]
ImagesArgument: TypeAlias = Annotated[list[Path], _readable_file(IMAGE_HELP, "IMAGE...")]
TextArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="TEXT", help="What the image is said to show, in quotes.")
]
TextsOption: TypeAlias = Annotated[
    list[str], typer.Option("--text", metavar="TEXT", help="A text to score; may be given several times.")
]

ServerOption: TypeAlias = Annotated[
    str,
    typer.Option(envvar="M2IB_SERVER", metavar="HOST:PORT", help="The server to ask.", rich_help_panel=SERVER_PANEL),
]
LocalOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--local",
        help="Start a private server for this command; needs --models and m2ib-server installed.",
        rich_help_panel=SERVER_PANEL,
    ),
]
ModelsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The folder of model packages for --local.",
        exists=True,
        file_okay=False,
        rich_help_panel=SERVER_PANEL,
    ),
]
DeviceOption: TypeAlias = Annotated[
    str,
    typer.Option(help="What --local computes on: cpu, cuda or tensorrt.", rich_help_panel=SERVER_PANEL),
]
TimeoutOption: TypeAlias = Annotated[
    float, typer.Option(metavar="SECONDS", help="How long to wait for the answer.", rich_help_panel=SERVER_PANEL)
]
MessageOption: TypeAlias = Annotated[
    int,
    typer.Option(
        envvar="M2IB_MAX_MESSAGE_MEBIBYTES",
        min=1,
        max=CEILING_MESSAGE_BYTES // MEBIBYTE,
        help="The largest message either way, in MiB; the server has a flag of the same name.",
        rich_help_panel=SERVER_PANEL,
    ),
]
ModelOption: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="The model; not needed where the server has only one.")
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the answer as JSON, and nothing else, on the standard output.")
]
OverlayOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png", dir_okay=False, help="Write the map drawn over the image, at the image's own size."
    ),
]
SidesOption: TypeAlias = Annotated[
    list[SideChoice] | None,
    typer.Option("--side", help="Explain this side only; may be given twice. Both by default."),
]
TruncateOption: TypeAlias = Annotated[
    bool, typer.Option("--truncate", help="Cut a text that is too long for the model instead of refusing it.")
]

EffortOption: TypeAlias = Annotated[
    EffortName | None,
    typer.Option(
        help="A named choice of settings: the method as published (the default), cheaper, sharper or with repeats.",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
PairsArgument: TypeAlias = Annotated[
    Path,
    _readable_file(
        "A CSV file with the columns image, text and, if you like, id, or a .jsonl file with an object of the same "
        "names on each line. Images are named from the file's own folder.",
        "PAIRS",
    ),
]
OutOption: TypeAlias = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", file_okay=False, help="Where the results go; made if it is not there."),
]
OverlaysOption: TypeAlias = Annotated[
    bool, typer.Option("--overlays", help="Write each map drawn over its image too, in DIR/overlays.")
]
ForceOption: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Explain again what has a result with these settings already.")
]

MaskOption: TypeAlias = Annotated[
    MaskName | None,
    typer.Option(
        "--mask",
        help="One mask value per channel (the method as published) or per token.",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
TextMaskOption: TypeAlias = Annotated[
    MaskName | None,
    typer.Option("--text-mask", help="The same for the text side alone.", rich_help_panel=SETTINGS_PANEL),
]
BetaOption: TypeAlias = Annotated[
    float | None,
    typer.Option(help="The weight of the information; more beta, less map.", rich_help_panel=SETTINGS_PANEL),
]
TextBetaOption: TypeAlias = Annotated[
    float | None, typer.Option(help="The same for the text side alone.", rich_help_panel=SETTINGS_PANEL)
]
StepsOption: TypeAlias = Annotated[int | None, typer.Option(help="Optimisation steps.", rich_help_panel=SETTINGS_PANEL)]
SamplesOption: TypeAlias = Annotated[
    int | None, typer.Option(help="Noise rows drawn per step.", rich_help_panel=SETTINGS_PANEL)
]
LearningRateOption: TypeAlias = Annotated[
    float | None, typer.Option(help="The optimiser's learning rate.", rich_help_panel=SETTINGS_PANEL)
]
SeedOption: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Seed of the noise; the same seed gives the same map.", rich_help_panel=SETTINGS_PANEL),
]
RepeatsOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Independent runs; the map is their mean, with a deviation and a stability.",
        rich_help_panel=SETTINGS_PANEL,
    ),
]
PriorityOption: TypeAlias = Annotated[
    PriorityName | None,
    typer.Option(help="Before others, or with what they leave.", rich_help_panel=SERVER_PANEL),
]
OnDeadlineOption: TypeAlias = Annotated[
    OnDeadlineName | None,
    typer.Option(
        help="When the timeout is too short: fail (the default), or answer with the best map so far.",
        rich_help_panel=SERVER_PANEL,
    ),
]

FitOption: TypeAlias = Annotated[
    FitName | None,
    typer.Option(
        help="How the image becomes a square: all of it on black, its centre only, or distorted.",
        rich_help_panel=IMAGE_PANEL,
    ),
]
FrameOption: TypeAlias = Annotated[
    int | None,
    typer.Option(help="The frame of a multi-frame image, from 1.", min=1, rich_help_panel=IMAGE_PANEL),
]
WindowOption: TypeAlias = Annotated[
    Window | None,
    typer.Option(
        metavar="CENTRE,WIDTH",
        parser=read_window,
        help="Override the window of a DICOM image (CT: in Hounsfield units).",
        rich_help_panel=IMAGE_PANEL,
    ),
]
DEFAULT_TIMEOUT = DEFAULT_TIMEOUT_SECONDS
DEFAULT_MESSAGE = MAX_MESSAGE_BYTES // MEBIBYTE
