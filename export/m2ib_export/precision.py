"""Owns the precisions of a package by name, and what each asks of a gradient."""

from enum import StrEnum

FP16_GRADIENT_SCALE = 2.0**12
"""Gradients of a similarity by features are some 1e-6 to 1e-3, and fp16 keeps full precision above 6e-5 only."""


class Precision(StrEnum):
    """What the products of heads and tails are evaluated in; everything else is float32 in each of them."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def is_half(self) -> bool:
        """Whether products have inputs and outputs of 16 bits."""
        return self is not Precision.FP32

    @property
    def gradient_scale(self) -> float:
        """A power of two that gradients carry on their way back, divided out in float32; bf16 has float32's range."""
        return FP16_GRADIENT_SCALE if self is Precision.FP16 else 1.0
