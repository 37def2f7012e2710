"""Owns the shapes of a model's two encoders and the rule that places the bottleneck. Knows no weights."""

from dataclasses import dataclass

from m2ib_export.errors import LayerOutOfRange

PAPER_DEPTH = 12
PAPER_BLOCKS_AFTER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionGeometry:
    """The vision encoder's shape: depth in blocks, width in channels, sizes in pixels, the patch grid in patches."""

    depth: int
    width: int
    image_size: int
    patch_size: int
    leading_tokens: int
    channels: int

    @property
    def grid(self) -> int:
        """Rows, and columns, of the square patch grid."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Tokens of one image: those before the first patch, then the patches."""
        return self.leading_tokens + self.grid**2


@dataclass(frozen=True, slots=True, kw_only=True)
class TextGeometry:
    """The text encoder's shape: depth in blocks, width in channels, context length in tokens."""

    depth: int
    width: int
    context_length: int
    vocabulary_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The shape of a model of two encoders that share an embedding space."""

    embedding_width: int
    vision: VisionGeometry
    text: TextGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The 0-based blocks whose outputs are the bottlenecks."""

    vision: int
    text: int


def default_layer(depth: int) -> int:
    """Place the bottleneck at the paper's share of the depth: two blocks of twelve follow it, and at least one.

    depth: blocks of the encoder, >= 2.
    """
    blocks_after = max(1, (2 * depth * PAPER_BLOCKS_AFTER + PAPER_DEPTH) // (2 * PAPER_DEPTH))
    return depth - 1 - blocks_after


def resolve_layers(geometry: Geometry, *, vision: int | None, text: int | None) -> Layers:
    """Fill what is unset with the paper's share and hold the rest against the depths.

    Raises:
        LayerOutOfRange: a layer does not exist or no block follows it.
    """
    return Layers(
        vision=_resolve("vision", vision, geometry.vision.depth),
        text=_resolve("text", text, geometry.text.depth),
    )


def _resolve(encoder: str, layer: int | None, depth: int) -> int:
    chosen = default_layer(depth) if layer is None else layer
    if not 0 <= chosen <= depth - 2:
        raise LayerOutOfRange(encoder, layer=chosen, depth=depth)
    return chosen
