"""Owns what a loaded model tells of itself: its shapes, its defaults and the limits of its server."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from m2ib_client._options import EffortName, FitName, MaskName
from m2ib_client._plain import PlainValue, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionEncoder:
    """The vision encoder: the bottleneck `layer`, from 0, of `depth` blocks; sizes in pixels."""

    layer: int
    depth: int
    width: int
    image_size: int
    patch_size: int
    grid_rows: int
    grid_columns: int
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoder:
    """The text encoder: the 0-based bottleneck layer of `depth` blocks; the context length in tokens."""

    layer: int
    depth: int
    width: int
    context_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskDefaults:
    """What unset settings mean with one mask shape, as `ExplainOptions` describes them."""

    beta: float
    text_beta: float
    steps: int
    samples: int
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortDefaults:
    """What one effort means for a model, as `ExplainOptions` describes it."""

    mask_shape: MaskName
    text_mask_shape: MaskName
    settings: MaskDefaults
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a request's unset settings mean.

    `efforts` has what each effort means, by its name; a request that names none means "published". `channel`
    and `token` are for requests that name that mask shape and no effort of the same shape.
    """

    channel: MaskDefaults
    token: MaskDefaults
    efforts: Mapping[EffortName, EffortDefaults]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityFigure:
    """How closely a graph follows the original model: the largest relative difference, and what it may be."""

    name: str
    relative_error: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server takes at most in one request; pixels are those of one frame.

    `max_batch_in_flight` is how many pairs of one `explain_many` it works at together, and
    `image_time_to_live_seconds` how long it keeps an uploaded image after its last use.
    """

    max_steps: int
    max_samples: int
    max_image_bytes: int
    max_image_pixels: int
    max_score_images: int
    max_score_texts: int
    max_text_characters: int
    max_repeats: int
    max_batch_in_flight: int
    image_time_to_live_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One loaded model.

    `digest` is the SHA-256 of its package's manifest, `references` the number of its reference texts.
    """

    name: str
    version: str
    digest: str
    family: str
    precision: str
    vision: VisionEncoder
    text: TextEncoder
    defaults: Defaults
    default_fit: FitName
    references: int
    parity: tuple[ParityFigure, ...]
    limits: Limits

    def to_dict(self) -> dict[str, PlainValue]:
        """Return JSON-safe values."""
        return cast("dict[str, PlainValue]", plain(self))
