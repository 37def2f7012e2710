"""Reads requests: proto to domain, every field checked, every unset one given the model's default."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import manifest_pb2, settings_pb2
from m2ib_server.engine import LoadedModel, Priority
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
PRIORITY_BY_PROTO: dict[int, Priority] = {
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BULK: Priority.BULK,
}
WANTS_PARTIAL_BY_PROTO: dict[int, bool] = {
    pb.ON_DEADLINE_UNSPECIFIED: False,
    pb.ON_DEADLINE_REFUSE: False,
    pb.ON_DEADLINE_PARTIAL: True,
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
    """Fill what is unset from the effort, or from the model's defaults for another mask shape; check the ranges.

    Each side's mask shape decides over its beta, the image's over what both sides have in common.

    Raises:
        SettingOutOfRange: naming the field.
        InvalidField: there is no such effort or mask shape.
    """
    effort = _effort(settings, model)
    defaults = model.manifest.defaults
    own, own_text = effort.mask_shape, effort.text_mask_shape or effort.mask_shape
    shape = settings.mask_shape or own
    text_shape = settings.text_mask_shape or settings.mask_shape or own_text
    mask_shape = _one_of("settings.mask_shape", shape, MASK_SHAPE_BY_PROTO)
    text_mask_shape = _one_of("settings.text_mask_shape", text_shape, MASK_SHAPE_BY_PROTO)
    base = effort.settings if shape == own else getattr(defaults, mask_shape.value)
    text_base = effort.settings if text_shape == own_text else getattr(defaults, text_mask_shape.value)
    beta = _positive("settings.beta", _set_or(settings, "beta", base.beta), MAX_BETA)
    text_beta = beta if settings.HasField("beta") else text_base.text_beta
    read = M2IBSettings(
        beta=beta,
        text_beta=_positive("settings.text_beta", _set_or(settings, "text_beta", text_beta), MAX_BETA),
        steps=_counted("settings.steps", _set_or(settings, "steps", base.steps), limits.max_steps),
        samples=_counted("settings.samples", _set_or(settings, "samples", base.samples), limits.max_samples),
        learning_rate=_positive(
            "settings.learning_rate",
            _set_or(settings, "learning_rate", base.learning_rate),
            MAX_LEARNING_RATE,
        ),
        mask_shape=mask_shape,
        text_mask_shape=text_mask_shape,
        seed=settings.seed,
        repeats=_counted("settings.repeats", _set_or(settings, "repeats", effort.repeats), limits.max_repeats),
    )
    if read.rows > limits.max_samples:
        seen, allowed = f"{read.samples} x {read.repeats} rows", f"samples x repeats of at most {limits.max_samples}"
        raise SettingOutOfRange("settings.repeats", seen=seen, allowed=allowed)
    return read


def effort_of(settings: settings_pb2.Settings) -> int:
    """Return the effort that a request names; none means the published one."""
    return settings.effort or settings_pb2.EFFORT_PUBLISHED


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


def read_tensor_image(image: pb.Image, model: LoadedModel) -> ReadImage:
    """Take model input as it is.

    Raises:
        TensorInvalid: the shape or the values are not what is allowed.
    """
    fitted = check_tensor(read_tensor("image.tensor", image.tensor), model.model_input)
    return ReadImage(rendered=render_tensor(fitted.pixel_values, model.model_input), fitted=fitted, fit=None)


def read_image(image: pb.Image, encoded: bytes, fit: int, model: LoadedModel, limits: RequestLimits) -> ReadImage:
    """Decode an image's bytes and bring it to the model's input. Slow: not for an event loop.

    Raises:
        InvalidField: one of the image's fields is not what is allowed.
    """
    if not encoded:
        raise ImageEmpty("image", seen="no image", allowed="encoded bytes, a tensor or a handle")
    chosen = read_fit(fit, model)
    rendered = render(
        encoded,
        frame=image.frame if image.HasField("frame") else None,
        window=_window(image.window) if image.HasField("window") else None,
        limits=ImageLimits(max_bytes=limits.max_image_bytes, max_pixels=limits.max_image_pixels),
    )
    return ReadImage(rendered=rendered, fitted=fit_image(rendered, model.model_input, chosen), fit=chosen)


def read_fit(fit: int, model: LoadedModel) -> Fit:
    """Return the fit asked for, or the model's.

    Raises:
        InvalidField: there is none of that number.
    """
    return _one_of("fit", fit or model.manifest.preprocessing.default_fit, FIT_BY_PROTO)


def read_priority(priority: int, default: Priority) -> Priority:
    """Return the class asked for, or the default.

    Raises:
        InvalidField: there is none of that number.
    """
    return default if not priority else _one_of("priority", priority, PRIORITY_BY_PROTO)


def read_on_deadline(on_deadline: int) -> bool:
    """Return whether a partial answer is wanted before the deadline.

    Raises:
        InvalidField: there is no such choice.
    """
    return _one_of("on_deadline", on_deadline, WANTS_PARTIAL_BY_PROTO)


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


def _effort(settings: settings_pb2.Settings, model: LoadedModel) -> manifest_pb2.EffortDefaults:
    return _one_of(
        "settings.effort", effort_of(settings), {each.effort: each for each in model.manifest.defaults.efforts}
    )


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
