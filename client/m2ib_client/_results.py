"""Owns what an explanation is to the caller: plain frozen values, with arrays that view the answer's bytes.

Arrays are float32 and read-only; `array.copy()` gives one to write to.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import PIL.Image

from m2ib_client._errors import OutputMissingError
from m2ib_client._options import EffortName, FitName, MaskName, OutputName, SideName, Window
from m2ib_client._plain import PlainValue, plain
from m2ib_client._tensor import FloatArray


class Span(NamedTuple):
    """A half-open range of the caller's text, in Unicode code points: `text[span.start:span.end]`."""

    start: int
    end: int


class Size(NamedTuple):
    """The size of an image, in pixels; width first, as Pillow has it."""

    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """An affine map of the plane: x' = xx x + xy y + x0 and y' = yx x + yy y + y0."""

    xx: float
    xy: float
    x0: float
    yx: float
    yy: float
    y0: float

    def apply(self, x: float, y: float) -> tuple[float, float]:
        """Return where the point goes."""
        return self.xx * x + self.xy * y + self.x0, self.yx * x + self.yy * y + self.y0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTrace:
    """One step of the optimisation.

    `loss` is beta x (mean information per mask element, in nats) - similarity; `similarity` the mean cosine
    similarity of the noised features with the other side, in [-1, 1]; `bits_kept` the information that the
    mask lets through, summed over patches or tokens.
    """

    loss: float
    similarity: float
    bits_kept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One optimisation step that is done. A slow reader may miss some.

    `step` counts from 1 to `steps`. `partial_grid` is the patch grid so far [rows, columns], in bits; None
    for the text side and where `partial_maps` was not asked for. The other fields are those of `StepTrace`.
    """

    side: SideName
    step: int
    steps: int
    similarity: float
    bits_kept: float
    partial_grid: FloatArray | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageAttribution:
    """The map over the image.

    `grid_bits` [rows, columns] is the information that each patch lets through, in bits, >= 0, comparable
    between images; `grid_normalised` is the same, min-max normalised to [0, 1]. `grid_to_original` leads from
    grid coordinates (x in columns, y in rows, (0, 0) the outer corner of the first patch) to the original's
    pixels ((0, 0) the outer corner of the first one); the original is the image as displayed, EXIF
    orientation applied. `model_map` [height, width] in [0, 1] is the paper's map at the model's input size;
    `original_map` is it at the original's, NaN where the fit cut the image off. Both are None, and the
    pictures empty, where not asked for. With repeats, `grid_std_bits` [rows, columns] is their standard
    deviation per patch, in bits, >= 0, and `stability` the mean rank correlation between their maps, in
    [-1, 1]; without, both are None.
    """

    grid_bits: FloatArray
    grid_normalised: FloatArray
    grid_to_original: Affine
    original_size: Size
    trace: tuple[StepTrace, ...]
    model_map: FloatArray | None
    original_map: FloatArray | None
    overlay_png: bytes
    rendering_png: bytes
    grid_std_bits: FloatArray | None
    stability: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The information that one token lets through, in bits, >= 0.

    `text` is the token as the caller wrote it and `span` where; empty and None for a special token (start or
    end). `normalised` is min-max over the tokens that are not special, in [0, 1]. `std_bits` is the repeats'
    standard deviation, >= 0; None without repeats.
    """

    text: str
    token_id: int
    span: Span | None
    bits: float
    normalised: float
    special: bool
    std_bits: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """The information that one word lets through.

    `bits` is summed over the word's tokens, >= 0; `normalised` is min-max over the words, in [0, 1].
    """

    text: str
    span: Span
    bits: float
    normalised: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAttribution:
    """The scores over the text, per token in the model's order and per word in the text's.

    `stability` is the mean rank correlation between the repeats' token scores, in [-1, 1]; None without repeats.
    """

    tokens: tuple[Token, ...]
    words: tuple[Word, ...]
    trace: tuple[StepTrace, ...]
    stability: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRank:
    """Where the similarity stands among those of the model's reference texts with the same image.

    `rank` is 1 + the number of reference texts that match better; the similarities are cosines. An
    explanation exists for any text, also for a wrong one: a poor rank says that this may be one.
    """

    rank: int
    references: int
    best_reference: str
    best_similarity: float
    mean_similarity: float

    @property
    def better_fraction(self) -> float:
        """The share of the reference texts that match the image better, in [0, 1]; 0 without references."""
        return (self.rank - 1) / self.references if self.references else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force, as `ExplainOptions` describes them."""

    effort: EffortName
    beta: float
    text_beta: float
    steps: int
    samples: int
    learning_rate: float
    mask_shape: MaskName
    text_mask_shape: MaskName
    seed: int
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How the image became grey values or colours.

    `image_format` is the format found, `window_source` where the grey scale came from ("none" for an 8-bit
    image, "full range", "request window", "window", "voi lut", "percentiles"), `window` the one in force if
    any, `inverted` whether the grey scale was inverted (MONOCHROME1).
    """

    image_format: str
    frame: int
    window_source: str
    window: Window | None
    inverted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLength:
    """A text's length in tokens, special ones included: as written, and as the model saw it."""

    tokens_given: int
    tokens_kept: int

    @property
    def truncated(self) -> bool:
        """True when the model saw less than was written."""
        return self.tokens_kept < self.tokens_given


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How the answer came about: enough to compute it again.

    `digest` is the SHA-256 of the model package's manifest, `image_sha256` that of the image as it was sent and
    `text_sha256` that of the text in UTF-8, empty from an older server. `fit` is None for a tensor. `device` is
    "cpu", "cuda" or "tensorrt". What is `cached` was not computed again for this answer; `shared` tells that an
    identical request was under way and this is its answer.
    """

    model: str
    version: str
    digest: str
    method: str
    settings: Settings
    fit: FitName | None
    image_sha256: str
    text_sha256: str
    rendering: Rendering
    text_length: TextLength
    image_features_cached: bool
    text_features_cached: bool
    image_embedding_cached: bool
    text_embedding_cached: bool
    shared: bool
    device: str
    software: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long each stage took on the server, in seconds."""

    prepare_seconds: float
    queue_seconds: float
    encode_seconds: float
    optimise_image_seconds: float
    optimise_text_seconds: float
    render_seconds: float
    total_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """Why the model matched the image and the text.

    `image` and `text` are None for a side that was not asked for. `similarity` is the cosine of the pair
    without a bottleneck, in [-1, 1]. `partial` is True when the deadline ended the optimisation early: each
    side's trace has the steps that were done, and a side that was not begun is None.
    """

    image: ImageAttribution | None
    text: TextAttribution | None
    similarity: float
    reference_rank: ReferenceRank
    provenance: Provenance
    timings: Timings
    partial: bool

    @property
    def words(self) -> tuple[Word, ...]:
        """The text's words in order; none where the text was not explained."""
        return self.text.words if self.text else ()

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The text's tokens in order, special ones included; none where the text was not explained."""
        return self.text.tokens if self.text else ()

    def overlay(self) -> PIL.Image.Image:
        """Return the map over the image, RGB, at the original's size; what was not evaluated is hatched.

        Raises:
            OutputMissingError: the request did not ask for it.
        """
        return _picture(self.image.overlay_png if self.image else b"", "overlay")

    def rendering(self) -> PIL.Image.Image:
        """Return the image as it was rendered for the model, grey or RGB, at the original's size.

        Raises:
            OutputMissingError: the request did not ask for it.
        """
        return _picture(self.image.rendering_png if self.image else b"", "rendering")

    def to_dict(self) -> dict[str, PlainValue]:
        """Return everything but the pictures as JSON-safe values; what is NaN becomes None."""
        return cast("dict[str, PlainValue]", plain(self))

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """The similarities of every image with every text.

    `matrix` [images, texts] holds cosines, in [-1, 1]; `text_lengths` has one entry per text. The model's
    fields are those of `Provenance`.
    """

    matrix: FloatArray
    model: str
    version: str
    digest: str
    text_lengths: tuple[TextLength, ...]

    def to_dict(self) -> dict[str, PlainValue]:
        """Return JSON-safe values."""
        return cast("dict[str, PlainValue]", plain(self))


def _picture(png: bytes, output: OutputName) -> PIL.Image.Image:
    if not png:
        raise OutputMissingError(
            f'the answer holds no {output}: ask for it with outputs=("{output}",) and the side "image"'
        )
    picture = PIL.Image.open(io.BytesIO(png), formats=("PNG",))
    picture.load()
    return picture
