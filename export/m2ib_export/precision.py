"""Owns the precisions of a package: their names, their element types and which operators are evaluated in them."""

from enum import StrEnum

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that multiply and add: where the time goes, and what hardware has units in half precision for."""
GRADIENT_SCALE = 2.0**12
"""What fp16 gradients are multiplied by on their way back: unscaled they are 1e-6 to 1e-3, and fp16 ends at 6e-8."""


class Precision(StrEnum):
    """What the heads' and tails' products are evaluated in; everything else is float32 in each of them."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def is_half(self) -> bool:
        """Whether products have inputs and outputs of 16 bits."""
        return self is not Precision.FP32

    @property
    def element_type(self) -> ir.DataType:
        """The products' element type in ONNX."""
        return ELEMENT_TYPES[self]

    @property
    def storage_type(self) -> npt.DTypeLike:
        """The same in numpy, in which weights are rounded and stored."""
        return STORAGE_TYPES[self]

    @property
    def products(self) -> frozenset[str]:
        """The operators to evaluate in this precision; ONNX has no Conv in bfloat16 at the opset in use."""
        return PRODUCTS - {"Conv"} if self is Precision.BF16 else PRODUCTS

    @property
    def gradient_scale(self) -> float:
        """A power of two by which gradients are multiplied, and divided again in float32; bf16 has fp32's range."""
        return GRADIENT_SCALE if self is Precision.FP16 else 1.0


ELEMENT_TYPES = {
    Precision.FP32: ir.DataType.FLOAT,
    Precision.FP16: ir.DataType.FLOAT16,
    Precision.BF16: ir.DataType.BFLOAT16,
}
STORAGE_TYPES: dict[Precision, npt.DTypeLike] = {
    Precision.FP32: np.float32,
    Precision.FP16: np.float16,
    Precision.BF16: ml_dtypes.bfloat16,
}
