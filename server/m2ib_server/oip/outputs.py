"""Owns the outputs that can be asked for: name, type, shape, what computing each takes, how each is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.json_format import MessageToJson

from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import manifest_pb2, settings_pb2
from m2ib_server.errors import InvalidField
from m2ib_server.oip.tensors import BYTES, FP32, Tensor, check_parameters, encode_bytes, encode_fp32

_REST_HINTS = frozenset({"binary_data"})  # of the REST encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An output.

    Attributes:
        name: its name.
        datatype: "FP32" or "BYTES".
        shape: its shape with a model, outermost first; -1 for a size that varies.
        write: writes it; of a partial answer that lacks its side, without elements.
        is_default: whether it is returned where a request names none.
        side: the side that has to be explained for it; None for either.
        native: what it is called in ExplainRequest.outputs; 0 for what every explanation carries.
    """

    name: str
    datatype: str
    shape: Callable[[manifest_pb2.Manifest], tuple[int, ...]]
    write: Callable[[pb.Explanation], Tensor]
    is_default: bool = False
    side: settings_pb2.Side.ValueType | None = None
    native: pb.Output.ValueType = pb.OUTPUT_UNSPECIFIED


def _float_tensor(name: str) -> Callable[[pb.Explanation], Tensor]:
    def write(explanation: pb.Explanation) -> Tensor:
        values: settings_pb2.FloatTensor = getattr(explanation.image, name)
        return Tensor(shape=tuple(values.shape) or (0, 0), raw=values.data)

    return write


def _strings(*elements: bytes) -> Tensor:
    return Tensor(shape=(len(elements),), raw=encode_bytes(elements))


def _numbers(*elements: float) -> Tensor:
    return Tensor(shape=(len(elements),), raw=encode_fp32(elements))


def _own_tokens(explanation: pb.Explanation) -> list[pb.TokenScore]:
    """Return the tokens of the caller's text; those that only mark its start and end are none."""
    return [token for token in explanation.text.tokens if not token.special]


def _picture(explanation: pb.Explanation) -> Tensor:
    return _strings(explanation.image.overlay_png) if explanation.HasField("image") else _strings()


def _provenance(explanation: pb.Explanation) -> Tensor:
    return _strings(MessageToJson(explanation.provenance, preserving_proto_field_name=True).encode())


OUTPUTS = (
    Output(
        name="grid",
        datatype=FP32,
        shape=lambda manifest: (manifest.vision.grid_rows, manifest.vision.grid_columns),
        write=_float_tensor("grid_bits"),
        is_default=True,
        side=settings_pb2.SIDE_IMAGE,
    ),
    Output(
        name="tokens",
        datatype=BYTES,
        shape=lambda manifest: (-1,),
        write=lambda explanation: _strings(*(token.text.encode() for token in _own_tokens(explanation))),
        is_default=True,
        side=settings_pb2.SIDE_TEXT,
    ),
    Output(
        name="token_scores",
        datatype=FP32,
        shape=lambda manifest: (-1,),
        write=lambda explanation: _numbers(*(token.bits for token in _own_tokens(explanation))),
        is_default=True,
        side=settings_pb2.SIDE_TEXT,
    ),
    Output(
        name="similarity",
        datatype=FP32,
        shape=lambda manifest: (1,),
        write=lambda explanation: _numbers(explanation.similarity),
        is_default=True,
    ),
    Output(
        name="map",
        datatype=FP32,
        shape=lambda manifest: (manifest.vision.image_size, manifest.vision.image_size),
        write=_float_tensor("model_map"),
        side=settings_pb2.SIDE_IMAGE,
        native=pb.OUTPUT_MODEL_MAP,
    ),
    Output(
        name="original_map",
        datatype=FP32,
        shape=lambda manifest: (-1, -1),
        write=_float_tensor("original_map"),
        side=settings_pb2.SIDE_IMAGE,
        native=pb.OUTPUT_ORIGINAL_MAP,
    ),
    Output(
        name="overlay",
        datatype=BYTES,
        shape=lambda manifest: (-1,),
        write=_picture,
        side=settings_pb2.SIDE_IMAGE,
        native=pb.OUTPUT_OVERLAY,
    ),
    Output(
        name="provenance",
        datatype=BYTES,
        shape=lambda manifest: (1,),
        write=_provenance,
    ),
)
DEFAULT_OUTPUTS = tuple(output for output in OUTPUTS if output.is_default)
_BY_NAME = {output.name: output for output in OUTPUTS}


def read_outputs(asked: Sequence[oip.ModelInferRequest.InferRequestedOutputTensor]) -> tuple[Output, ...]:
    """Return the outputs asked for, in that order; none named means the small ones.

    Raises:
        InvalidField: an output is unknown or named twice, or has parameters.
    """
    names = ", ".join(_BY_NAME)
    if len(asked) > len(OUTPUTS):  # before their names are read: there may be as many as fit into a message
        raise InvalidField("outputs", seen=f"{len(asked)} outputs", allowed=f"{names}, each at most once")
    read: list[Output] = []
    for index, wire in enumerate(asked):
        check_parameters(f"outputs[{index}].parameters", wire.parameters, _REST_HINTS)
        if (output := _BY_NAME.get(wire.name)) is None:
            raise InvalidField(f"outputs[{index}].name", seen="a name that is not known", allowed=names)
        if output in read:
            raise InvalidField(
                f"outputs[{index}].name", seen=f"{output.name} again", allowed="each output at most once"
            )
        read.append(output)
    return tuple(read) or DEFAULT_OUTPUTS


def sides_of(outputs: Sequence[Output]) -> list[settings_pb2.Side.ValueType]:
    """Return the sides to explain for outputs; where they need none, the image's: an explanation has one at least."""
    return sorted({output.side for output in outputs if output.side is not None}) or [settings_pb2.SIDE_IMAGE]
