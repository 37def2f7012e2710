"""Owns what an export is told: the recipe beside a checkpoint, the command line over it, the defaults under both."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from m2ib.v1 import manifest_pb2, settings_pb2
from m2ib_export.attribution import Plan
from m2ib_export.errors import RecipeInvalid

RECIPE_FILE = "m2ib.json"
NAME_RULE = "1 to 64 of lower-case letters, digits, '.', '_' and '-'"
FITS = {
    "letterbox": settings_pb2.FIT_LETTERBOX,
    "centre_crop": settings_pb2.FIT_CENTRE_CROP,
    "stretch": settings_pb2.FIT_STRETCH,
}
MASK_SHAPES = {"channel": settings_pb2.MASK_SHAPE_CHANNEL, "token": settings_pb2.MASK_SHAPE_TOKEN}
EFFORTS = {
    "published": settings_pb2.EFFORT_PUBLISHED,
    "fast": settings_pb2.EFFORT_FAST,
    "specific": settings_pb2.EFFORT_SPECIFIC,
    "thorough": settings_pb2.EFFORT_THOROUGH,
}
MAX_BETA = 100.0
MAX_LEARNING_RATE = 10.0
MAX_COUNT = 2**32 - 1

_NAME = re.compile(r"[a-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskDefaults:
    """What unset settings mean for one mask shape; the fields and ranges are those of the request's settings."""

    beta: float = 0.1
    text_beta: float = 0.1
    steps: int = 10
    samples: int = 10
    learning_rate: float = 1.0

    def to_proto(self) -> manifest_pb2.MaskDefaults:
        """Write the defaults as the manifest has them."""
        return manifest_pb2.MaskDefaults(
            beta=self.beta,
            text_beta=self.text_beta,
            steps=self.steps,
            samples=self.samples,
            learning_rate=self.learning_rate,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortDefaults:
    """What one effort means; the fields and ranges are those of the request's settings.

    text_mask_shape: the text side's; None means that of mask_shape.
    """

    mask_shape: str
    settings: MaskDefaults
    text_mask_shape: str | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        """Hold the mask shapes against their choices."""
        _check_choice("mask_shape", self.mask_shape, MASK_SHAPES)
        _check_choice("text_mask_shape", self.shape_of_text, MASK_SHAPES)

    @property
    def shape_of_text(self) -> str:
        """The mask shape of the text side."""
        return self.text_mask_shape or self.mask_shape

    def to_text_plan(self) -> Plan:
        """Return the text's optimisation, with ten steps of ten rows: more steps leave words that tie at no bits."""
        settings, is_per_channel = self.settings, self.shape_of_text == "channel"
        return Plan(beta=settings.text_beta, learning_rate=settings.learning_rate, is_per_channel=is_per_channel)

    def to_proto(self, effort: str) -> manifest_pb2.EffortDefaults:
        """Write the effort as the manifest has it."""
        return manifest_pb2.EffortDefaults(
            effort=EFFORTS[effort],
            mask_shape=MASK_SHAPES[self.mask_shape],
            text_mask_shape=MASK_SHAPES[self.shape_of_text],
            settings=self.settings.to_proto(),
            repeats=self.repeats,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPlans:
    """The optimisations whose maps an export compares, ten steps of ten rows.

    image, text: with the published mask. text_of_own_shape: the text's in an effort that gives it another mask shape
    than the image; None without such an effort.
    """

    image: Plan
    text: Plan
    text_of_own_shape: Plan | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a checkpoint is exported; None means that the checkpoint or the paper decides.

    reference_texts: the name of a built-in list or the path of a file with one text a line.
    """

    name: str | None = None
    version: str = "1"
    vision_layer: int | None = None
    text_layer: int | None = None
    fit: str = "letterbox"
    channel: MaskDefaults = field(default_factory=MaskDefaults)
    token: MaskDefaults = field(default_factory=MaskDefaults)
    efforts: Mapping[str, EffortDefaults] = field(default_factory=dict)
    reference_texts: str = "general"

    def __post_init__(self) -> None:
        """Hold names and choices against their rules."""
        for label, name in (("name", self.name), ("version", self.version)):
            if name is not None and not _NAME.fullmatch(name):
                raise RecipeInvalid(label, seen=repr(name), allowed=NAME_RULE)
        _check_choice("fit", self.fit, FITS)
        for effort in self.efforts:
            _check_choice("defaults.efforts", effort, EFFORTS)

    def to_defaults(self) -> manifest_pb2.Defaults:
        """Write what unset settings mean as the manifest has it."""
        return manifest_pb2.Defaults(
            channel=self.channel.to_proto(),
            token=self.token.to_proto(),
            efforts=[each.to_proto(effort) for effort, each in (self.general_efforts() | dict(self.efforts)).items()],
        )

    def general_efforts(self) -> dict[str, EffortDefaults]:
        """Return what the efforts mean where a recipe does not say, which is careful (docs/fidelity.md)."""
        return {
            "published": EffortDefaults(mask_shape="channel", settings=self.channel),
            "fast": EffortDefaults(mask_shape="channel", settings=replace(self.channel, samples=4)),
            "specific": EffortDefaults(mask_shape="token", settings=self.token),
            "thorough": EffortDefaults(mask_shape="channel", settings=self.channel, repeats=4),
        }

    def to_plans(self) -> MapPlans:
        """Return the optimisations whose maps an export compares."""
        image = Plan(beta=self.channel.beta, learning_rate=self.channel.learning_rate)
        own = next((each for each in self.efforts.values() if each.shape_of_text != each.mask_shape), None)
        return MapPlans(
            image=image,
            text=replace(image, beta=self.channel.text_beta),
            text_of_own_shape=None if own is None else own.to_text_plan(),
        )


def read_recipe(directory: Path) -> Recipe:
    """Read the recipe beside a checkpoint; a checkpoint without one has the defaults.

    Raises:
        RecipeInvalid: the file is no JSON object, names an unknown field or has a value out of range.
    """
    path = directory / RECIPE_FILE
    if not path.exists():
        return Recipe()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise RecipeInvalid(RECIPE_FILE, seen=f"{type(cause).__name__}: {cause}", allowed="a JSON object") from cause
    recipe = parse_recipe(document)
    beside = directory / recipe.reference_texts
    return replace(recipe, reference_texts=str(beside)) if beside.is_file() else recipe


def parse_recipe(document: object) -> Recipe:
    """Turn a recipe's JSON document into a recipe.

    Raises:
        RecipeInvalid: the document is no object, names an unknown field or has a value out of range.
    """
    fields = _object(
        "", document, ("name", "version", "fit", "reference_texts", "vision_layer", "text_layer", "defaults")
    )
    defaults = _object("defaults", fields.pop("defaults", {}), ("channel", "token", "efforts"))
    for label in ("name", "version", "fit", "reference_texts"):
        _check_type(label, fields, str, "text")
    for label in ("vision_layer", "text_layer"):
        _check_type(label, fields, int, "a whole number")
    for label in ("channel", "token"):
        if label in defaults:
            defaults[label] = _mask_defaults(f"defaults.{label}", defaults[label])
    efforts = _object("defaults.efforts", defaults.pop("efforts", {}), tuple(EFFORTS))
    defaults["efforts"] = {name: _effort(f"defaults.efforts.{name}", each) for name, each in efforts.items()}
    return Recipe(**fields, **defaults)


def override(recipe: Recipe, **options: Any) -> Recipe:
    """Let the options that are not None win over the recipe."""
    return replace(recipe, **{name: option for name, option in options.items() if option is not None})


def _effort(label: str, document: object) -> EffortDefaults:
    fields = _object(label, document, ("mask_shape", "text_mask_shape", "settings", "repeats"))
    _check_choice(f"{label}.mask_shape", str(fields.get("mask_shape")), MASK_SHAPES)
    if "text_mask_shape" in fields:
        _check_choice(f"{label}.text_mask_shape", str(fields["text_mask_shape"]), MASK_SHAPES)
    _check_range(f"{label}.repeats", fields.get("repeats", 1), int, MAX_COUNT)
    fields["settings"] = _mask_defaults(f"{label}.settings", fields.get("settings", {}))
    return EffortDefaults(**fields)


def _mask_defaults(label: str, document: object) -> MaskDefaults:
    fields = _object(label, document, ("beta", "text_beta", "steps", "samples", "learning_rate"))
    for name in ("steps", "samples"):
        _check_range(f"{label}.{name}", fields.get(name, 1), int, MAX_COUNT)
    for name in ("beta", "text_beta"):
        _check_range(f"{label}.{name}", fields.get(name, 1), (int, float), MAX_BETA)
    _check_range(f"{label}.learning_rate", fields.get("learning_rate", 1), (int, float), MAX_LEARNING_RATE)
    return MaskDefaults(**fields)


def _object(label: str, document: object, allowed: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise RecipeInvalid(label or RECIPE_FILE, seen=type(document).__name__, allowed="a JSON object")
    unknown = sorted(set(document) - set(allowed))
    if unknown:
        raise RecipeInvalid(label or RECIPE_FILE, seen=f"the field {unknown[0]!r}", allowed=", ".join(allowed))
    return dict(document)


def _check_type(label: str, fields: Mapping[str, object], kind: type, allowed: str) -> None:
    if label in fields and (not isinstance(fields[label], kind) or isinstance(fields[label], bool)):
        raise RecipeInvalid(label, seen=repr(fields[label]), allowed=allowed)


def _check_range(label: str, value: object, kind: type | tuple[type, ...], most: float) -> None:
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not 0 < value <= most:  # type: ignore[operator]
        whole = "a whole number " if kind is int else ""
        raise RecipeInvalid(label, seen=repr(value), allowed=f"{whole}above 0, at most {most:g}")


def _check_choice(label: str, choice: str, choices: Mapping[str, object]) -> None:
    if choice not in choices:
        raise RecipeInvalid(label, seen=repr(choice), allowed=", ".join(choices))
