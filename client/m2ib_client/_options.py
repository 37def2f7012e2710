"""Owns the vocabulary of the calls' options: their names, their meaning and the values they may have."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict, Union

import numpy as np
import PIL.Image

if TYPE_CHECKING:
    import pydicom

SideName: TypeAlias = Literal["image", "text"]
MaskName: TypeAlias = Literal["channel", "token"]
FitName: TypeAlias = Literal["letterbox", "centre_crop", "stretch"]
OutputName: TypeAlias = Literal["model_map", "original_map", "overlay", "rendering"]

ImageSource: TypeAlias = Union[str, os.PathLike[str], bytes, PIL.Image.Image, np.ndarray[Any, Any], "pydicom.Dataset"]
"""What a call takes for an image.

- a path, or a file's bytes: PNG, JPEG, TIFF, WebP or DICOM;
- a Pillow image: the pixels it holds, so an EXIF orientation that was not applied to them stays unapplied;
- an array uint8 [height, width], [height, width, 3 or 4] or uint16 [height, width]: sent as PNG, without
  loss;
- an array float32 [channels, size, size]: model input, as the model's own preprocessing would leave it;
- a pydicom dataset.

Of DICOM, in whatever form, only the description of the pixels and the pixels are sent: the patient's and the
study's identifiers stay here. Text that is burnt into the pixels is not removed.
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
    """What `explain` and `explain_stream` take besides the image and the text.

    Every setting that is None takes the model's default for the mask shape in force; `models()` shows those
    defaults.

    - `sides`: what to explain, of "image" and "text"; both by default.
    - `beta`: the weight of the information against the similarity, > 0 and at most 100, no unit. More beta,
      less map.
    - `steps`: optimisation steps, from 1 to the server's limit.
    - `samples`: noise rows drawn per step, from 1 to the server's limit.
    - `learning_rate`: Adam's, > 0 and at most 10.
    - `mask_shape`: "channel", the method as published, or "token", one value per patch or token.
    - `seed`: of the noise, 0 to 2^64 - 1. The same seed gives the same map.
    - `outputs`: what to return besides the patch grid: "overlay" (the default), "rendering", "model_map",
      "original_map".
    """

    sides: Sequence[SideName]
    beta: float | None
    steps: int | None
    samples: int | None
    learning_rate: float | None
    mask_shape: MaskName | None
    seed: int | None
    outputs: Sequence[OutputName]
