"""Reads a request's parameters: the protocol's own, and ours, each of which sets one field of an ExplainRequest."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.protobuf.message import Message

from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from m2ib_server.errors import InvalidField, SettingOutOfRange

Value = bool | int | float
Reader = Callable[[str, oip.InferParameter], Value]

PREFIX = "m2ib_"
_WHOLE = ("int64_param", "uint64_param")
_NUMBER = (*_WHOLE, "double_param")
_PASSED_OVER = frozenset({"binary_data_output", "triton_enable_empty_final_response"})
_TYPES = {
    "bool_param": "a truth value",
    "int64_param": "a whole number",
    "uint64_param": "a whole number",
    "string_param": "a string",
    "double_param": "a number with a fraction",
    None: "no value",
}


def _as_number(name: str, parameter: oip.InferParameter) -> float:
    return float(getattr(parameter, _kind(name, parameter, _NUMBER, "a number")))


def _as_flag(name: str, parameter: oip.InferParameter) -> bool:
    return bool(getattr(parameter, _kind(name, parameter, ("bool_param",), "true or false")))


def _as_whole(most: int) -> Callable[[str, oip.InferParameter], int]:
    def read(name: str, parameter: oip.InferParameter) -> int:
        allowed = f"a whole number from 0 to {most}"
        value = int(getattr(parameter, _kind(name, parameter, _WHOLE, allowed)))
        if not 0 <= value <= most:
            raise SettingOutOfRange(f"parameters.{name}", seen=str(value), allowed=allowed)
        return value

    return read


def _as_one_of(choices: Mapping[str, int]) -> Reader:
    def read(name: str, parameter: oip.InferParameter) -> int:
        allowed = ", ".join(choices)
        chosen = getattr(parameter, _kind(name, parameter, ("string_param",), f"one of the strings {allowed}"))
        if chosen not in choices:
            raise InvalidField(f"parameters.{name}", seen="another string", allowed=allowed)
        return choices[chosen]

    return read


def _kind(name: str, parameter: oip.InferParameter, kinds: tuple[str, ...], allowed: str) -> str:
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in kinds:
        raise InvalidField(f"parameters.{name}", seen=_TYPES[kind], allowed=allowed)
    return kind


_UINT32, _INT64, _UINT64 = 2**32 - 1, 2**63 - 1, 2**64 - 1
_MASK_SHAPES = {"channel": settings_pb2.MASK_SHAPE_CHANNEL, "token": settings_pb2.MASK_SHAPE_TOKEN}
_EFFORTS = {
    "published": settings_pb2.EFFORT_PUBLISHED,
    "fast": settings_pb2.EFFORT_FAST,
    "specific": settings_pb2.EFFORT_SPECIFIC,
    "thorough": settings_pb2.EFFORT_THOROUGH,
}
_FITS = {
    "letterbox": settings_pb2.FIT_LETTERBOX,
    "centre_crop": settings_pb2.FIT_CENTRE_CROP,
    "stretch": settings_pb2.FIT_STRETCH,
}
_ON_DEADLINE = {"refuse": pb.ON_DEADLINE_REFUSE, "partial": pb.ON_DEADLINE_PARTIAL}

# by the field of m2ib.v1.ExplainRequest that a parameter sets
READERS: dict[str, Reader] = {
    "settings.beta": _as_number,
    "settings.text_beta": _as_number,
    "settings.learning_rate": _as_number,
    "settings.steps": _as_whole(_UINT32),
    "settings.samples": _as_whole(_UINT32),
    "settings.repeats": _as_whole(_UINT32),
    "settings.seed": _as_whole(_UINT64),
    "settings.effort": _as_one_of(_EFFORTS),
    "settings.mask_shape": _as_one_of(_MASK_SHAPES),
    "settings.text_mask_shape": _as_one_of(_MASK_SHAPES),
    "fit": _as_one_of(_FITS),
    "image.frame": _as_whole(_UINT32),
    "image.window.center": _as_number,
    "image.window.width": _as_number,
    "truncate_text": _as_flag,
    "on_deadline": _as_one_of(_ON_DEADLINE),
}


def parameter_of(path: str) -> str:
    """Return the parameter that sets a field: `m2ib_window_center` for `image.window.center`."""
    return PREFIX + path.removeprefix("settings.").removeprefix("image.").replace(".", "_")


FIELDS: dict[str, str] = {parameter_of(path): path for path in READERS}
STREAM_FLAGS = ("m2ib_progress", "m2ib_partial_grids")
NAMES = (*FIELDS, *STREAM_FLAGS, "timeout", "priority")

# what faults of an ExplainRequest's fields are called here, where it is no parameter that sets them
_OTHER_NAMES = {
    "image": "inputs.image",
    "image.encoded": "inputs.image",
    "text": "inputs.text",
    "image.window": f"parameters.{parameter_of('image.window.width')}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What a request's parameters say.

    Attributes:
        values: of the fields of ExplainRequest that they set, by the fields' paths.
        timeout_us: how long the answer may take, in microseconds; 0 for no bound.
        priority: the protocol's: 0 for none said, 1 for the most urgent.
        progress: whether each step is told of.
        partial_grids: whether with the grid so far.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    timeout_us: int = 0
    priority: int = 0
    progress: bool = False
    partial_grids: bool = False


def read_parameters(wire: Mapping[str, oip.InferParameter], *, is_stream: bool) -> Parameters:
    """Read a request's parameters; what only a stream can do is refused elsewhere.

    Raises:
        InvalidField: a parameter is unknown or of another type, or its value is none that it can have.
    """
    _check_known(wire)
    values = {path: READERS[path](name, wire[name]) for name, path in FIELDS.items() if name in wire}
    _check_window(values)
    flags = {name: _as_flag(name, wire[name]) for name in STREAM_FLAGS if name in wire}
    for name, is_set in flags.items():
        if is_set and not is_stream:
            raise InvalidField(f"parameters.{name}", seen="true", allowed="false, except in ModelStreamInfer")
    return Parameters(
        values=values,
        timeout_us=_as_whole(_INT64)("timeout", wire["timeout"]) if "timeout" in wire else 0,
        priority=_as_whole(_UINT64)("priority", wire["priority"]) if "priority" in wire else 0,
        progress=any(flags.values()),
        partial_grids=flags.get("m2ib_partial_grids", False),
    )


def set_fields(request: pb.ExplainRequest, values: Mapping[str, Value]) -> None:
    """Set fields of a request by their paths."""
    for path, value in values.items():
        *parents, name = path.split(".")
        message: Message = request
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)


@contextmanager
def renamed_faults() -> Iterator[None]:
    """Let faults of an ExplainRequest's fields name what the caller sent in their place."""
    try:
        yield
    except InvalidField as error:
        raise _renamed(error) from error


def _renamed(error: InvalidField) -> InvalidField:
    if error.field in READERS:
        name = f"parameters.{parameter_of(error.field)}"
    else:
        name = _OTHER_NAMES.get(error.field, error.field)
    return type(error)(name, seen=error.seen, allowed=error.allowed)


def _check_known(wire: Mapping[str, oip.InferParameter]) -> None:
    if any(name.startswith("sequence_") for name in wire):
        raise InvalidField("parameters", seen="a sequence", allowed="requests that stand alone")
    if wire.keys() - _PASSED_OVER - set(NAMES):
        raise InvalidField("parameters", seen="a parameter that is not known", allowed=", ".join(NAMES))


def _check_window(values: Mapping[str, Value]) -> None:
    both = ("image.window.center", "image.window.width")
    for path, other in (both, both[::-1]):
        if path in values and other not in values:
            allowed = f"{parameter_of(path)} and {parameter_of(other)} together, or neither"
            raise InvalidField(f"parameters.{parameter_of(other)}", seen="no value", allowed=allowed)
