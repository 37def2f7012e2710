"""Owns what is particular to Hugging Face's `CLIPModel`: loading it, running its own layers, its shapes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import CLIPModel
from transformers.masking_utils import create_causal_mask
from transformers.utils import logging

from m2ib_export.errors import CheckpointInvalid
from m2ib_export.families import Split
from m2ib_export.families.clip_parts import TextHead, TextTail, VisionHead, VisionTail
from m2ib_export.geometry import Geometry, Layers, TextGeometry, VisionGeometry

LEGACY_END_TOKEN = 2
"""Checkpoints with this `eos_token_id` pool at the highest token id, whatever their tokeniser ends a text with."""


def load(directory: Path) -> "OriginalClip":
    """Load a checkpoint of `CLIPModel` in float32 with eager attention.

    Raises:
        CheckpointInvalid: the checkpoint cannot be read, lacks weights or has a shape that is not supported.
    """
    read: Any = CLIPModel.from_pretrained  # its types do not know the loading report
    try:
        with _no_progress_bar():
            model, report = read(
                directory,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
                local_files_only=True,
            )
    except (OSError, ValueError, RuntimeError) as cause:
        raise CheckpointInvalid("weights", seen=f"{type(cause).__name__}: {cause}", allowed="a CLIPModel") from cause
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        seen = f"{len(missing)} missing or misshapen tensors, the first {missing[0]}"
        raise CheckpointInvalid("weights", seen=seen, allowed="every tensor of a CLIPModel")
    model.eval().requires_grad_(False)
    return OriginalClip(model)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing over the exporter's own progress."""
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class OriginalClip:
    """A `CLIPModel`, run through transformers' own layers."""

    def __init__(self, model: Any) -> None:
        """Take a model that is frozen, in eval mode and float32."""
        self._model = model
        self._geometry = _geometry(model.config)

    @property
    def geometry(self) -> Geometry:
        """The shapes of both encoders."""
        return self._geometry

    def end_token_id(self, *, tokeniser_end: int, highest_token: int) -> int:
        """Return the tokeniser's end token when it is the one that the model pools at.

        Raises:
            CheckpointInvalid: the model would pool at another token than the end of the text.
        """
        config_end = self._model.config.text_config.eos_token_id
        pooled = highest_token if config_end == LEGACY_END_TOKEN else config_end
        if tokeniser_end != pooled:
            seen = f"texts that end with token {tokeniser_end}"
            raise CheckpointInvalid("tokeniser", seen=seen, allowed=f"token {pooled}, where the model pools")
        return tokeniser_end

    def split(self, layers: Layers) -> Split:
        """Cut both encoders behind the given blocks and prune their last blocks to the pooled token."""
        vision, text = self._model.vision_model, self._model.text_model
        vision_cut, text_cut = layers.vision + 1, layers.text + 1
        parts = Split(
            vision_head=VisionHead(vision, vision_cut),
            vision_tail=VisionTail(vision, self._model.visual_projection, vision_cut),
            text_head=TextHead(text, text_cut),
            text_tail=TextTail(text, self._model.text_projection, text_cut),
        )
        for part in (parts.vision_head, parts.vision_tail, parts.text_head, parts.text_tail):
            part.eval().requires_grad_(False)
        return parts

    def image_features(self, pixel_values: Tensor, layer: int) -> Tensor:
        """[batch, channels, height, width] -> the output of block `layer` [batch, tokens, width]."""
        hidden = self._model.vision_model.pre_layrnorm(self._model.vision_model.embeddings(pixel_values))
        return self._run(self._model.vision_model.encoder.layers[: layer + 1], hidden, None)

    def text_features(self, token_ids: Tensor, attention_mask: Tensor, layer: int) -> Tensor:
        """Int64 [batch, tokens], twice -> the output of block `layer` [batch, tokens, width]."""
        hidden = self._model.text_model.embeddings(input_ids=token_ids)
        mask = self._causal_mask(hidden, attention_mask)
        return self._run(self._model.text_model.encoder.layers[: layer + 1], hidden, mask)

    def image_tail(self, features: Tensor, layer: int) -> Tensor:
        """[batch, tokens, width] behind block `layer` -> embedding [batch, embedding width]; keeps gradients."""
        hidden = self._run(self._model.vision_model.encoder.layers[layer + 1 :], features, None)
        pooled = self._model.vision_model.post_layernorm(hidden[:, 0, :])
        return cast("Tensor", self._model.visual_projection(pooled))

    def text_tail(self, features: Tensor, token_ids: Tensor, attention_mask: Tensor, layer: int) -> Tensor:
        """As `image_tail`; the token ids say which token is pooled."""
        mask = self._causal_mask(features, attention_mask)
        hidden = self._run(self._model.text_model.encoder.layers[layer + 1 :], features, mask)
        normed = self._model.text_model.final_layer_norm(hidden)
        pooled = normed[torch.arange(len(token_ids)), self._pooled_position(token_ids)]
        return cast("Tensor", self._model.text_projection(pooled))

    @torch.no_grad()
    def embed_images(self, pixel_values: Tensor) -> Tensor:
        """[batch, channels, height, width] -> embedding [batch, embedding width], not normalised."""
        return cast("Tensor", self._model.get_image_features(pixel_values=pixel_values).pooler_output)

    @torch.no_grad()
    def embed_texts(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Int64 [batch, tokens], twice -> embedding [batch, embedding width], not normalised."""
        answer = self._model.get_text_features(input_ids=token_ids, attention_mask=attention_mask)
        return cast("Tensor", answer.pooler_output)

    def _run(self, layers: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
        for layer in layers:
            hidden = layer(hidden, mask)
        return hidden

    def _causal_mask(self, hidden: Tensor, attention_mask: Tensor) -> Tensor | None:
        mask = create_causal_mask(
            config=self._model.text_model.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=None,
        )
        return cast("Tensor | None", mask)

    def _pooled_position(self, token_ids: Tensor) -> Tensor:
        end = self._model.config.text_config.eos_token_id
        marks = token_ids if end == LEGACY_END_TOKEN else (token_ids == end).int()
        return marks.argmax(dim=-1)


def _geometry(config: Any) -> Geometry:
    vision, text = config.vision_config, config.text_config
    for name, size in (("image_size", vision.image_size), ("patch_size", vision.patch_size)):
        if not isinstance(size, int):
            raise CheckpointInvalid(f"vision_config.{name}", seen=repr(size), allowed="one whole number, a square")
    return Geometry(
        embedding_width=config.projection_dim,
        vision=VisionGeometry(
            depth=vision.num_hidden_layers,
            width=vision.hidden_size,
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            leading_tokens=1,
            channels=vision.num_channels,
        ),
        text=TextGeometry(
            depth=text.num_hidden_layers,
            width=text.hidden_size,
            context_length=text.max_position_embeddings,
            vocabulary_size=text.vocab_size,
        ),
    )
