"""Owns the vocabulary of the calls' options: their names, their meaning and the values they may have."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict, Union

import numpy as np
import PIL.Image

from m2ib_client._handle import ImageHandle

if TYPE_CHECKING:
    import pydicom

SideName: TypeAlias = Literal["image", "text"]
MaskName: TypeAlias = Literal["channel", "token"]
EffortName: TypeAlias = Literal["published", "fast", "specific", "thorough"]
FitName: TypeAlias = Literal["letterbox", "centre_crop", "stretch"]
OutputName: TypeAlias = Literal["model_map", "original_map", "overlay", "rendering"]
PriorityName: TypeAlias = Literal["interactive", "bulk"]
OnDeadlineName: TypeAlias = Literal["refuse", "partial"]

ImageSource: TypeAlias = Union[
    str, os.PathLike[str], bytes, PIL.Image.Image, np.ndarray[Any, Any], "pydicom.Dataset", ImageHandle
]
"""What a call takes for an image.

- a path, or a file's bytes: PNG, JPEG, TIFF, WebP or DICOM;
- a Pillow image: the pixels it holds, so an EXIF orientation that was not applied to them stays unapplied;
- an array uint8 [height, width], [height, width, 3 or 4] or uint16 [height, width]: sent as PNG, without
  loss;
- an array float32 [channels, size, size]: model input, as the model's own preprocessing would leave it;
- a pydicom dataset;
- the `ImageHandle` of an uploaded image.

Of DICOM, in whatever form, only the description of the pixels and the pixels are sent: the patient's and the
study's identifiers stay here. Text that is burnt into the pixels is not removed. PNG, JPEG, TIFF and WebP given
as a path or as bytes are sent as they are, with whatever EXIF, XMP or text they hold; of a Pillow image only the
pixels are sent. A file of any other format is refused and not sent.
"""


class Window(NamedTuple):
    """A window of a DICOM image, in units after the modality transformation (of CT: Hounsfield units)."""

    centre: float
    width: float


class ScoreOptions(TypedDict, total=False):
    """What `score` takes besides images and texts; `explain` takes it too.

    - `model`: the model's name; empty means the only model loaded.
    - `fit`: how the image becomes the model's square input: "letterbox" shows all of it, "centre_crop" is
      CLIP's own and cuts off what is not square, "stretch" distorts. None means the model's default.
    - `truncate_text`: cut an over-long text instead of refusing it; the answer's `text_length` then says so.
    - `frame`: the frame of a multi-frame image, from 1. None means 1.
    - `window`: `(centre, width)`, overrides the window of a DICOM image.
    """

    model: str
    fit: FitName | None
    truncate_text: bool
    frame: int | None
    window: Window | tuple[float, float] | None


class ExplainOptions(ScoreOptions, total=False):
    """What `explain`, `explain_stream` and `explain_many` take besides the image and the text.

    Every setting that is None takes the value of the effort, or, where `mask_shape` is given and not the
    effort's, the model's default for that mask shape; `models()` shows both. The text side's mask shape
    decides so over `text_beta` alone, `mask_shape` over the rest.

    - `sides`: what to explain, of "image" and "text"; both by default.
    - `effort`: a named choice of settings: "published", the method as published, which is what None means;
      "fast", at most 40 % of its cost; "specific", the sharpest maps for at most its cost; "thorough", several
      seeds, with a deviation per patch and a stability.
    - `beta`: the weight of the information against the similarity, > 0 and at most 100, no unit. More beta,
      less map. For both sides, unless `text_beta` is given too.
    - `text_beta`: the same for the text side alone.
    - `steps`: optimisation steps, from 1 to the server's limit.
    - `samples`: noise rows drawn per step, from 1 to the server's limit.
    - `learning_rate`: Adam's, > 0 and at most 10.
    - `mask_shape`: "channel", the method as published, or "token", one value per patch or token. For both
      sides, whatever the effort says of the text, unless `text_mask_shape` is given too.
    - `text_mask_shape`: the same for the text side alone.
    - `seed`: of the noise, 0 to 2^64 - 1. The same seed gives the same map.
    - `repeats`: independent runs with the seeds `seed`, `seed + 1`, ..., from 1 to the server's limit. The map
      is their mean; from 2 on the answer tells how far they differ.
    - `outputs`: what to return besides the patch grid: "overlay" (the default), "rendering", "model_map",
      "original_map".
    - `priority`: "interactive", before others, or "bulk", with what those leave. None means interactive, and
      in `explain_many` bulk.
    - `on_deadline`: what becomes of a request whose timeout is too short: "refuse" (what None means) fails,
      "partial" answers in time with the best map so far, marked `partial`.
    """

    sides: Sequence[SideName]
    effort: EffortName | None
    beta: float | None
    text_beta: float | None
    steps: int | None
    samples: int | None
    learning_rate: float | None
    mask_shape: MaskName | None
    text_mask_shape: MaskName | None
    seed: int | None
    repeats: int | None
    outputs: Sequence[OutputName]
    priority: PriorityName | None
    on_deadline: OnDeadlineName | None
