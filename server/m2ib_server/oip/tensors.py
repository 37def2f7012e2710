"""Reads and writes the protocol's tensors. What a shape says is held against what was sent before anything is made."""

import math
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from m2ib.oip import inference_pb2 as oip
from m2ib_server.errors import InvalidField, TensorInvalid

BYTES, FP32 = "BYTES", "FP32"
MAX_DIMENSIONS = 8
SHARED_MEMORY = "shared_memory_"
_REST_HINTS = frozenset({"binary_data_size", "content_type"})  # of the REST encoding; some clients leave them on gRPC
_LENGTH = struct.Struct("<I")
_TYPED = "bytes_contents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An output.

    Attributes:
        shape: outermost first.
        raw: its elements as `raw_output_contents` has them.
    """

    shape: tuple[int, ...]
    raw: bytes


def read_elements(wire: oip.ModelInferRequest, names: Collection[str]) -> dict[str, bytes]:
    """Return the one element of each input [1] BYTES, raw or typed, by the input's name.

    Raises:
        InvalidField: an input is missing, unknown or named twice, or has parameters.
        TensorInvalid: a datatype, a shape or the contents are not what is allowed.
    """
    _check_names(wire, names)
    for index, tensor in enumerate(wire.inputs):
        check_parameters(f"inputs[{index}].parameters", tensor.parameters, _REST_HINTS)
    raw, inputs = wire.raw_input_contents, wire.inputs
    if raw and len(raw) != len(inputs):
        allowed = f"{len(inputs)}, one for each input, or none"
        raise TensorInvalid("raw_input_contents", seen=f"{len(raw)} entries", allowed=allowed)
    return {
        tensor.name: _element(index, tensor, raw[index] if raw else None)  # a string each: no view, no copy of all
        for index, tensor in enumerate(inputs)
    }


def check_parameters(
    field: str, parameters: Mapping[str, oip.InferParameter], passed_over: Collection[str] = frozenset()
) -> None:
    """Refuse a tensor's parameters: shared memory would let a caller name the host's memory, and there are no others.

    Raises:
        InvalidField: there are parameters that are not passed over.
    """
    for name in parameters:
        if name.startswith(SHARED_MEMORY):
            raise InvalidField(field, seen="shared memory", allowed="tensors within the message")
        if name == "classification":
            raise InvalidField(field, seen="classification", allowed="the tensor itself; classes are not ranked")
        if name not in passed_over:
            raise InvalidField(field, seen="a parameter that is not known", allowed="none")


def count_elements(field: str, shape: Sequence[int], limit: int) -> int:
    """Return the number of elements of a shape.

    Raises:
        TensorInvalid: there are too many dimensions or elements, or a size is negative.
    """
    if len(shape) > MAX_DIMENSIONS:  # first of all: a shape may have as many sizes as fit into a message
        raise TensorInvalid(field, seen=f"{len(shape)} dimensions", allowed=f"at most {MAX_DIMENSIONS}")
    if any(size < 0 for size in shape):
        raise TensorInvalid(field, seen="a negative size", allowed="sizes of at least 0")
    count = math.prod(shape)
    if count > limit:
        raise TensorInvalid(field, seen=f"{count} elements", allowed=f"at most {limit}")
    return count


def decode_bytes(field: str, raw: bytes, count: int) -> list[bytes]:
    """Return the elements of a BYTES tensor: of each its length, four bytes, little-endian, and as many bytes.

    Raises:
        TensorInvalid: there are not exactly `count` elements.
    """
    elements: list[bytes] = []
    at = 0
    for index in range(count):
        if len(raw) - at < _LENGTH.size:
            raise TensorInvalid(field, seen=f"{len(raw)} bytes that end before element {index}", allowed=_WHOLE)
        length = _LENGTH.unpack_from(raw, at)[0]
        at += _LENGTH.size
        if length > len(raw) - at:
            raise TensorInvalid(field, seen=f"{len(raw)} bytes that end within element {index}", allowed=_WHOLE)
        elements.append(raw[at : at + length])
        at += length
    if at < len(raw):
        raise TensorInvalid(field, seen=f"{len(raw) - at} bytes after the last element", allowed=_WHOLE)
    return elements


def encode_bytes(elements: Sequence[bytes]) -> bytes:
    """Return the elements of a BYTES tensor as they go over the wire."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def encode_fp32(values: Sequence[float]) -> bytes:
    """Return the elements of an FP32 tensor as they go over the wire."""
    return struct.pack(f"<{len(values)}f", *values)


_WHOLE = "for each element of the shape its length, four bytes, and as many bytes"


def _check_names(wire: oip.ModelInferRequest, names: Collection[str]) -> None:
    allowed = f"{', '.join(names)}, each once"
    if len(wire.inputs) > len(names):  # before their names are read: there may be as many as fit into a message
        raise InvalidField("inputs", seen=f"{len(wire.inputs)} inputs", allowed=allowed)
    given = [tensor.name for tensor in wire.inputs]
    for index, name in enumerate(given):
        if name not in names:
            raise InvalidField(f"inputs[{index}].name", seen="a name that is not known", allowed=allowed)
    for name in names:
        if given.count(name) != 1:
            raise InvalidField(f"inputs.{name}", seen=f"{given.count(name)} of them", allowed=allowed)


def _element(index: int, tensor: oip.ModelInferRequest.InferInputTensor, raw: bytes | None) -> bytes:
    field = f"inputs.{tensor.name}"
    if tensor.datatype != BYTES:
        raise TensorInvalid(f"{field}.datatype", seen="another datatype", allowed=BYTES)
    if (count := count_elements(f"{field}.shape", tensor.shape, 1)) != 1 or len(tensor.shape) != 1:
        seen = f"{count} elements in {len(tensor.shape)} dimensions"
        raise TensorInvalid(f"{field}.shape", seen=seen, allowed="[1], one element in one dimension")
    if raw is None:
        return _typed(field, tensor)
    if tensor.HasField("contents") and tensor.contents.ListFields():
        raise TensorInvalid(f"{field}.contents", seen="contents beside raw_input_contents", allowed="one of the two")
    return decode_bytes(f"raw_input_contents[{index}]", raw, 1)[0]


def _typed(field: str, tensor: oip.ModelInferRequest.InferInputTensor) -> bytes:
    if {each.name for each, _ in tensor.contents.ListFields()} - {_TYPED}:
        raise TensorInvalid(f"{field}.contents", seen="contents of another type", allowed=_TYPED)
    elements = tensor.contents.bytes_contents
    if len(elements) != 1:
        raise TensorInvalid(f"{field}.contents", seen=f"{len(elements)} elements", allowed="1, as the shape says")
    return elements[0]
