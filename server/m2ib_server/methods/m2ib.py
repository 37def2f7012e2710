"""Multi-modal information bottleneck attribution (M2IB) as published: Wang, Rudner & Wilson, NeurIPS 2023.

For each side m with features x_m at the bottleneck and the other side's embedding E, find the mask that maximises
I(z_m; E) - beta I(z_m; x_m). The first term is bounded through the cosine similarity of the noised features' embedding
with E, the second by the KL divergence of `bottleneck.information_nats`. The map is the information the mask lets
through, summed over channels.

The released code differs from the paper, or from what one would expect, in these places; each is settled here as said:

- It recomputes both encoders for every noise row of every step. Features and target embedding depend on neither noise
  nor mask, so they are computed once.
- Its setting for the noise's variance has no effect; the noise is standard normal, and so it is here.
- It draws noise without a seed. Here a request's seed decides its noise.
- It takes log((1 - lambda)^2) and its root, which overflow when lambda rounds to 1, and hides NaN in a nansum. Here the
  stable forms of `bottleneck` are used and nothing is hidden.
- It reads the map at the last forward pass, so that the last Adam update never counts. This is kept as published.
- It averages the information over rows, which are equal, since the information does not depend on the noise. One row
  of it is computed here.
- It accumulates gradients of all weights. Here only the mask has a gradient.
- For OpenAI's checkpoints it drops the causal mask, projects the text twice and pools the last position. Here the
  graphs are the model itself.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from m2ib_server.methods.bottleneck import MaskShape, information_nats, initial_alpha, noised_features
from m2ib_server.methods.encoder import Encoded, EncoderInput, encode, tail_gradient
from m2ib_server.methods.evaluation import Method, Side, StepDone

NAME = "m2ib"


@dataclass(frozen=True, slots=True, kw_only=True)
class M2IBSettings:
    """One optimisation's settings; ranges are those of m2ib.v1.Settings.

    Attributes:
        beta: the weight of the information term.
        steps: optimisation steps.
        samples: noise rows per step.
        learning_rate: Adam's, on alpha.
        mask_shape: the mask's shape.
        seed: the noise's seed; each side draws from a generator of its own, seeded alike.
    """

    beta: float
    steps: int
    samples: int
    learning_rate: float
    mask_shape: MaskShape
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The outcome for a pair.

    Attributes:
        similarity: the pair's cosine similarity without a bottleneck, in [-1, 1].
        image_embedding: normalised [1, embedding width], on the device.
        course: the steps of each side that was asked for; the last one's bits are the attribution.
    """

    similarity: float
    image_embedding: Tensor
    course: dict[Side, tuple[StepDone, ...]]


def explain(
    image: EncoderInput, text: EncoderInput, settings: M2IBSettings, sides: Collection[Side]
) -> Method[Attribution]:
    """Explain a pair, the two sides independently of one another."""
    image_encoded, text_encoded = yield from encode((image, text))
    course: dict[Side, tuple[StepDone, ...]] = {}
    if Side.IMAGE in sides:
        course[Side.IMAGE] = yield from optimise(image_encoded, text_encoded.embedding, settings)
    if Side.TEXT in sides:
        course[Side.TEXT] = yield from optimise(text_encoded, image_encoded.embedding, settings)
    similarity = float((image_encoded.embedding * text_encoded.embedding).sum())
    return Attribution(similarity=similarity, image_embedding=image_encoded.embedding, course=course)


def optimise(encoded: Encoded, target: Tensor, settings: M2IBSettings) -> Method[tuple[StepDone, ...]]:
    """Optimise one side's mask against the other side's embedding, target [1, embedding width]."""
    features = encoded.features
    alpha = initial_alpha(features, settings.mask_shape)
    adam = torch.optim.Adam([alpha], lr=settings.learning_rate)
    generator = torch.Generator(features.device).manual_seed(settings.seed)
    noise_shape = (settings.samples, *features.shape[1:])
    course: list[StepDone] = []
    for step in range(1, settings.steps + 1):
        noise = torch.randn(noise_shape, generator=generator, device=features.device)
        noised = noised_features(features, alpha, noise)  # z: [samples, tokens, width]
        information = information_nats(features, alpha)  # [1, tokens, width]
        similarity, gradient = yield tail_gradient(encoded.source, noised.detach(), target)

        penalty = settings.beta * information.mean()
        loss = penalty - similarity.mean()
        # The tail is frozen and evaluated elsewhere; its gradient by z enters the chain rule as an inner product.
        (penalty - (gradient * noised).sum() / settings.samples).backward()  # type: ignore[no-untyped-call]
        adam.step()
        adam.zero_grad()

        bits = information.detach()[0].sum(dim=-1).clamp(min=0) / math.log(2)
        done = StepDone(
            side=encoded.source.side,
            step=step,
            steps=settings.steps,
            loss=float(loss.detach()),
            similarity=float(similarity.mean()),
            bits=bits.cpu(),
        )
        course.append(done)
        yield done
    return tuple(course)
