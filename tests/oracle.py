"""M2IB written a second time, straight on a Hugging Face CLIPModel: hooks, whole encoders, autograd through everything.

It shares no code with the server, caches nothing and uses the paper's formulas as they stand. Slow, and meant to be.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import CLIPModel


@dataclass(frozen=True, kw_only=True)
class OracleSettings:
    layer: int
    beta: float
    steps: int
    samples: int
    learning_rate: float
    mask_shape: str
    seed: int


class Bottleneck:
    """Replaces a block's output x by lambda x + (1 - lambda) eps."""

    def __init__(self, settings: OracleSettings) -> None:
        self.settings = settings
        self.alpha = None
        self.capacity = None
        self.generator = torch.Generator().manual_seed(settings.seed)

    def __call__(self, module, inputs, output):
        if self.alpha is None:
            width = output.shape[-1] if self.settings.mask_shape == "channel" else 1
            self.alpha = torch.full((1, output.shape[1], width), 5.0, requires_grad=True)
        keep = torch.sigmoid(self.alpha)
        noise = torch.randn(output.shape, generator=self.generator)
        self.capacity = -0.5 * (1 + torch.log((1 - keep) ** 2) - (keep * output) ** 2 - (1 - keep) ** 2)
        return keep * output + (1 - keep) * noise


@contextmanager
def hooked(block, bottleneck):
    handle = block.register_forward_hook(bottleneck)
    try:
        yield
    finally:
        handle.remove()


def image_embedding(model: CLIPModel, pixel_values: torch.Tensor) -> torch.Tensor:
    return model.visual_projection(model.vision_model(pixel_values=pixel_values).pooler_output)


def text_embedding(model: CLIPModel, token_ids: torch.Tensor) -> torch.Tensor:
    return model.text_projection(model.text_model(input_ids=token_ids).pooler_output)


def similarity(model: CLIPModel, pixel_values: torch.Tensor, token_ids: torch.Tensor) -> float:
    with torch.no_grad():
        pair = image_embedding(model, pixel_values), text_embedding(model, token_ids)
        return torch.cosine_similarity(*pair).item()


def image_information(model, pixel_values, token_ids, settings: OracleSettings) -> torch.Tensor:
    """Information per token [tokens] in nats, with the paper's optimisation of the image's mask."""
    block = model.vision_model.encoder.layers[settings.layer]
    with torch.no_grad():
        target = text_embedding(model, token_ids)
    rows = pixel_values.expand(settings.samples, -1, -1, -1)
    return _optimise(block, lambda: image_embedding(model, rows), target, settings)


def text_information(model, pixel_values, token_ids, settings: OracleSettings) -> torch.Tensor:
    """Information per token [tokens] in nats, with the paper's optimisation of the text's mask."""
    block = model.text_model.encoder.layers[settings.layer]
    with torch.no_grad():
        target = image_embedding(model, pixel_values)
    rows = token_ids.expand(settings.samples, -1)
    return _optimise(block, lambda: text_embedding(model, rows), target, settings)


def _optimise(block, forward, target, settings: OracleSettings) -> torch.Tensor:
    bottleneck = Bottleneck(settings)
    optimiser = None
    with hooked(block, bottleneck):
        for _ in range(settings.steps):
            embedding = forward()
            if optimiser is None:
                optimiser = torch.optim.Adam([bottleneck.alpha], lr=settings.learning_rate)
            fit = torch.cosine_similarity(embedding, target, eps=1e-6).mean()
            loss = settings.beta * bottleneck.capacity.mean() - fit
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return bottleneck.capacity.detach().mean(dim=0).sum(dim=-1)
