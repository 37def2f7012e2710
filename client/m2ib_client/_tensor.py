"""Owns the passage of float32 arrays over the wire, both ways."""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from m2ib.v1 import settings_pb2
from m2ib_client._errors import IncompatibleServerError

FloatArray: TypeAlias = NDArray[np.float32]
WIRE_DTYPE = np.dtype("<f4")


def pack(array: FloatArray) -> settings_pb2.FloatTensor:
    """Return the array as it goes over the wire: little-endian, row-major."""
    return settings_pb2.FloatTensor(shape=array.shape, data=array.astype(WIRE_DTYPE, copy=False).tobytes())


def unpack(tensor: settings_pb2.FloatTensor, *, dimensions: int) -> FloatArray:
    """Return a read-only view of the tensor's bytes; nothing is copied.

    Raises:
        IncompatibleServerError: the tensor has another number of dimensions, or its bytes do not fill its
        shape.
    """
    shape = tuple(tensor.shape)
    if len(shape) != dimensions or math.prod(shape) * WIRE_DTYPE.itemsize != len(tensor.data):
        raise IncompatibleServerError(
            f"the answer holds a tensor of shape {shape} in {len(tensor.data)} bytes; "
            f"expected {dimensions} dimensions of 4-byte values"
        )
    return np.frombuffer(tensor.data, dtype=WIRE_DTYPE).reshape(shape)
