"""M2IB as one would write it in eager PyTorch: transformers' own layers, autograd through the whole tail.

Features and target are computed once for each explanation, as the server does; nothing is pruned or traced. It shares
no code with the server or the exporter, so equal maps say that both did the same work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, softplus
from transformers import CLIPModel
from transformers.utils import logging

Tail = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSettings:
    """The published settings; the layers are 0-based blocks, the seed is that of each side's noise."""

    image_layer: int
    text_layer: int
    beta: float = 0.1
    steps: int = 10
    samples: int = 10
    learning_rate: float = 1.0
    seed: int = 0


class PlainM2IB:
    """Explains with a `CLIPModel` as transformers loads it by default."""

    def __init__(self, checkpoint: Path, settings: PlainSettings) -> None:
        """Load the checkpoint, every parameter frozen."""
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        model: Any = CLIPModel.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)
        self._model = model.eval().requires_grad_(False)
        self._settings = settings

    def explain(self, pixels: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
        """Return the information per token [tokens] in nats, by side.

        pixels: [1, channels, height, width]; token_ids: int64 [1, tokens], the last one the pooled end token.
        """
        with torch.no_grad():
            image, text = self._image_features(pixels), self._text_features(token_ids)
            text_target, image_target = self._image_tail(image), self._text_tail(text)
        return {
            "image": _optimise(image, self._image_tail, image_target, self._settings),
            "text": _optimise(text, self._text_tail, text_target, self._settings),
        }

    def _image_features(self, pixels: Tensor) -> Tensor:
        vision = self._model.vision_model
        hidden = vision.pre_layrnorm(vision.embeddings(pixels))
        for block in vision.encoder.layers[: self._settings.image_layer + 1]:
            hidden = block(hidden, None)
        return cast("Tensor", hidden)

    def _text_features(self, token_ids: Tensor) -> Tensor:
        hidden = self._model.text_model.embeddings(input_ids=token_ids)
        for block in self._model.text_model.encoder.layers[: self._settings.text_layer + 1]:
            hidden = block(hidden, None, is_causal=True)
        return cast("Tensor", hidden)

    def _image_tail(self, hidden: Tensor) -> Tensor:
        for block in self._model.vision_model.encoder.layers[self._settings.image_layer + 1 :]:
            hidden = block(hidden, None)
        pooled = self._model.vision_model.post_layernorm(hidden[:, 0])
        return cast("Tensor", self._model.visual_projection(pooled))

    def _text_tail(self, hidden: Tensor) -> Tensor:
        for block in self._model.text_model.encoder.layers[self._settings.text_layer + 1 :]:
            hidden = block(hidden, None, is_causal=True)
        pooled = self._model.text_model.final_layer_norm(hidden)[:, -1]
        return cast("Tensor", self._model.text_projection(pooled))


def _optimise(features: Tensor, tail: Tail, target: Tensor, settings: PlainSettings) -> Tensor:
    """Return what the mask lets through at the last forward pass, as published."""
    alpha = torch.full_like(features, 5.0, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(settings.seed)
    information = torch.zeros_like(features)
    for _ in range(settings.steps):
        keep, spare = torch.sigmoid(alpha), torch.sigmoid(-alpha)
        noise = torch.randn((settings.samples, *features.shape[1:]), generator=generator)
        information = 0.5 * ((keep * features).square() + spare.square() - 1 + 2 * softplus(alpha))
        similarity = cosine_similarity(tail(keep * features + spare * noise), target, dim=-1)
        loss = settings.beta * information.mean() - similarity.mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return information.detach()[0].sum(dim=-1)
