"""Owns the registry of model families and what the exporter asks of one. A new family is one file and one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor, nn

from m2ib_export.errors import CheckpointInvalid
from m2ib_export.geometry import Geometry, Layers

FAMILIES = {"clip": "m2ib_export.families.clip"}
"""The module of each family by the `model_type` of a checkpoint's config.json; each has a function `load`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A model split at its bottlenecks, as modules to export: frozen, in eval mode, float32.

    vision_head: pixel values [batch, channels, height, width] -> features [batch, tokens, width].
    vision_tail: features -> embedding [batch, embedding width], not normalised.
    text_head: token ids, attention mask, both int64 [batch, tokens] -> features [batch, tokens, width].
    text_tail: features, attention mask, pooled position int64 [batch] -> embedding, not normalised.
    """

    vision_head: nn.Module
    vision_tail: nn.Module
    text_head: nn.Module
    text_tail: nn.Module


class OriginalModel(Protocol):
    """A checkpoint as its own library runs it: the yardstick, float32, in eval mode, every parameter frozen.

    Whatever it computes goes through the library's own layers, so that it checks `split` instead of repeating it.
    """

    @property
    def geometry(self) -> Geometry:
        """The shapes of both encoders."""

    def end_token_id(self, *, tokeniser_end: int, highest_token: int) -> int:
        """Return the token that is pooled, given the tokeniser's last token and its highest id, or refuse."""

    def split(self, layers: Layers) -> Split:
        """Cut both encoders behind the given blocks; what follows the last pooled token's needs is pruned."""

    def image_features(self, pixel_values: Tensor, layer: int) -> Tensor:
        """[batch, channels, height, width] -> the output of block `layer` [batch, tokens, width]."""

    def text_features(self, token_ids: Tensor, attention_mask: Tensor, layer: int) -> Tensor:
        """Int64 [batch, tokens], twice -> the output of block `layer` [batch, tokens, width]."""

    def image_tail(self, features: Tensor, layer: int) -> Tensor:
        """[batch, tokens, width] behind block `layer` -> embedding [batch, embedding width]; keeps gradients."""

    def text_tail(self, features: Tensor, token_ids: Tensor, attention_mask: Tensor, layer: int) -> Tensor:
        """As `image_tail`; the token ids say which token is pooled."""

    def embed_images(self, pixel_values: Tensor) -> Tensor:
        """[batch, channels, height, width] -> embedding [batch, embedding width], not normalised."""

    def embed_texts(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Int64 [batch, tokens], twice -> embedding [batch, embedding width], not normalised."""


def load_original(family: str, directory: Path) -> OriginalModel:
    """Load the checkpoint in `directory` with the family's library.

    Raises:
        CheckpointInvalid: no family of that name is known, or the family cannot read the checkpoint.
    """
    if family not in FAMILIES:
        raise CheckpointInvalid("config.json, model_type", seen=repr(family), allowed=", ".join(sorted(FAMILIES)))
    load = cast("Callable[[Path], OriginalModel]", import_module(FAMILIES[family]).load)
    return load(directory)
