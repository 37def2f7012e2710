"""Reads requests: proto to domain, every field checked, every unset one given the model's default."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import manifest_pb2, settings_pb2
from m2ib_server.engine import LoadedModel
from m2ib_server.errors import ImageEmpty, InvalidField, SettingOutOfRange, TensorInvalid
from m2ib_server.imaging import (
    Fit,
    FittedImage,
    ImageLimits,
    RenderedImage,
    Window,
    check_tensor,
    fit_image,
    render,
    render_tensor,
)
from m2ib_server.methods import M2IBSettings, MaskShape, Side
from m2ib_server.settings import MAX_BETA, MAX_LEARNING_RATE, RequestLimits

_TENSOR_DIMENSIONS = 3

SIDE_BY_PROTO: dict[int, Side] = {settings_pb2.SIDE_IMAGE: Side.IMAGE, settings_pb2.SIDE_TEXT: Side.TEXT}
MASK_SHAPE_BY_PROTO: dict[int, MaskShape] = {
    settings_pb2.MASK_SHAPE_CHANNEL: MaskShape.CHANNEL,
    settings_pb2.MASK_SHAPE_TOKEN: MaskShape.TOKEN,
}
FIT_BY_PROTO: dict[int, Fit] = {
    settings_pb2.FIT_LETTERBOX: Fit.LETTERBOX,
    settings_pb2.FIT_CENTRE_CROP: Fit.CENTRE_CROP,
    settings_pb2.FIT_STRETCH: Fit.STRETCH,
}
OUTPUTS: frozenset[int] = frozenset(pb.Output.values()) - {pb.OUTPUT_UNSPECIFIED}

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadImage:
    """An image on its way to the model.

    Attributes:
        rendered: the image as displayed.
        fitted: the model's input and the way back.
        fit: as asked for or defaulted; None for a tensor.
    """

    rendered: RenderedImage
    fitted: FittedImage
    fit: Fit | None


def read_settings(settings: settings_pb2.Settings, model: LoadedModel, limits: RequestLimits) -> M2IBSettings:
    """Fill what is unset from the model's defaults for the mask shape in force, and check the ranges.

    Raises:
        SettingOutOfRange: naming the field.
    """
    defaults = model.manifest.defaults
    shape = settings.mask_shape or defaults.mask_shape
    mask_shape = _one_of("settings.mask_shape", shape, MASK_SHAPE_BY_PROTO)
    by_mask: manifest_pb2.MaskDefaults = getattr(defaults, mask_shape.value)
    return M2IBSettings(
        beta=_positive("settings.beta", _set_or(settings, "beta", by_mask.beta), MAX_BETA),
        steps=_counted("settings.steps", _set_or(settings, "steps", by_mask.steps), limits.max_steps),
        samples=_counted("settings.samples", _set_or(settings, "samples", by_mask.samples), limits.max_samples),
        learning_rate=_positive(
            "settings.learning_rate",
            _set_or(settings, "learning_rate", by_mask.learning_rate),
            MAX_LEARNING_RATE,
        ),
        mask_shape=mask_shape,
        seed=settings.seed,
    )


def read_sides(sides: Sequence[int]) -> tuple[Side, ...]:
    """Return the sides to explain; those unspecified are passed over, and none named means both.

    Raises:
        InvalidField: a side is unknown or named twice.
    """
    asked = [side for side in sides if side != settings_pb2.SIDE_UNSPECIFIED]
    read = tuple(_one_of("sides", side, SIDE_BY_PROTO) for side in asked)
    _check_once("sides", read)
    return read or tuple(Side)


def read_outputs(outputs: Sequence[int]) -> frozenset[int]:
    """Return the outputs asked for; those unspecified are passed over.

    Raises:
        InvalidField: an output is unknown or named twice.
    """
    asked = [output for output in outputs if output != pb.OUTPUT_UNSPECIFIED]
    if unknown := set(asked) - OUTPUTS:
        names = ", ".join(sorted(name for name, output in pb.Output.items() if output in OUTPUTS))
        raise InvalidField("outputs", seen=f"enum value {min(unknown)}", allowed=names)
    _check_once("outputs", asked)
    return frozenset(asked)


def read_image(image: pb.Image, fit: int, model: LoadedModel, limits: RequestLimits) -> ReadImage:
    """Decode an image and bring it to the model's input. Slow: not for an event loop.

    Raises:
        InvalidField: one of the image's fields is not what is allowed.
    """
    if image.WhichOneof("source") == "tensor":
        fitted = check_tensor(read_tensor("image.tensor", image.tensor), model.model_input)
        rendered = render_tensor(fitted.pixel_values, model.model_input)
        return ReadImage(rendered=rendered, fitted=fitted, fit=None)
    if not image.encoded:
        raise ImageEmpty("image", seen="no image", allowed="encoded bytes or a tensor")
    chosen = _one_of("fit", fit or model.manifest.preprocessing.default_fit, FIT_BY_PROTO)
    rendered = render(
        image.encoded,
        frame=image.frame if image.HasField("frame") else None,
        window=_window(image.window) if image.HasField("window") else None,
        limits=ImageLimits(max_bytes=limits.max_image_bytes, max_pixels=limits.max_image_pixels),
    )
    fitted = fit_image(rendered, model.model_input, chosen)
    return ReadImage(rendered=rendered, fitted=fitted, fit=chosen)


def read_input(image: pb.Image, fit: int, model: LoadedModel, limits: RequestLimits) -> NDArray[np.float32]:
    """Bring an image to the model's input [channels, height, width] and let go of all else. Not for an event loop.

    Raises:
        InvalidField: one of the image's fields is not what is allowed.
    """
    return read_image(image, fit, model, limits).fitted.pixel_values


def read_tensor(field: str, tensor: settings_pb2.FloatTensor) -> NDArray[np.float32]:
    """Return the values of model input [channels, height, width], read-only.

    Raises:
        TensorInvalid: there are not three dimensions, or not as many values as they say.
    """
    dimensions = len(tensor.shape)
    if dimensions != _TENSOR_DIMENSIONS:  # first of all: a shape may have as many sizes as fit into a message
        allowed = f"{_TENSOR_DIMENSIONS}: channels, height, width"
        raise TensorInvalid(field, seen=f"{dimensions} dimensions", allowed=allowed)
    shape = tuple(tensor.shape)
    wanted = 4 * math.prod(shape)
    if not wanted or wanted != len(tensor.data):
        seen = f"{len(tensor.data)} bytes with shape {list(shape)}"
        raise TensorInvalid(field, seen=seen, allowed="4 bytes for each element of a shape without zeros")
    return np.frombuffer(tensor.data, "<f4").reshape(shape)


def check_text_size(field: str, text: str, limits: RequestLimits) -> None:
    """Refuse a text that is too long to be tokenised at all.

    Raises:
        InvalidField: naming its length.
    """
    if len(text) > limits.max_text_characters:
        allowed = f"at most {limits.max_text_characters} characters"
        raise InvalidField(field, seen=f"{len(text)} characters", allowed=allowed)


def check_count(field: str, count: int, limit: int) -> None:
    """Refuse a list that is empty or too long.

    Raises:
        InvalidField: naming its length.
    """
    if not 1 <= count <= limit:
        raise InvalidField(field, seen=f"{count} entries", allowed=f"1 to {limit} entries")


def _window(window: pb.Window) -> Window:
    if not math.isfinite(window.center) or not (math.isfinite(window.width) and window.width >= 1):
        allowed = "a finite centre and a finite width of at least 1"
        raise InvalidField("image.window", seen="values out of range", allowed=allowed)
    return Window(center=window.center, width=window.width)


def _set_or(settings: settings_pb2.Settings, name: str, default: float) -> float:
    value: float = getattr(settings, name) if settings.HasField(name) else default  # type: ignore[arg-type]
    return value


def _positive(field: str, value: float, limit: float) -> float:
    if not 0 < value <= limit:  # false for NaN too
        raise SettingOutOfRange(field, seen=f"{value:g}", allowed=f"more than 0 and at most {limit:g}")
    return value


def _counted(field: str, value: float, limit: int) -> int:
    if not 1 <= value <= limit:
        raise SettingOutOfRange(field, seen=f"{value:g}", allowed=f"1 to {limit}")
    return int(value)


def _one_of(field: str, value: int, table: Mapping[int, Value]) -> Value:
    if value not in table:
        allowed = ", ".join(str(key) for key in table)
        raise InvalidField(field, seen=f"enum value {value}", allowed=f"enum values {allowed}")
    return table[value]


def _check_once(field: str, values: Sequence[object]) -> None:
    if len(set(values)) < len(values):
        raise InvalidField(field, seen="a value twice", allowed="each value at most once")
