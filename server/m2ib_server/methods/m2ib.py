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
- It accumulates gradients of all weights. Here only the mask has a gradient, in closed form behind the tail's.
- For OpenAI's checkpoints it drops the causal mask, projects the text twice and pools the last position. Here the
  graphs are the model itself.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m2ib_server.errors import EvaluationFailed
from m2ib_server.methods.bottleneck import MaskShape, alpha_gradient, information_nats, initial_alpha, noised_features
from m2ib_server.methods.encoder import HEAD, TAIL, TAIL_GRAD, Encoded, EncoderInput, encode, tail_gradient
from m2ib_server.methods.evaluation import Event, Method, PairEncoded, Side, StepDone
from m2ib_server.package import Role

NAME = "m2ib"
_SEEDS = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class M2IBSettings:
    """One optimisation's settings; ranges are those of m2ib.v1.Settings.

    Attributes:
        beta: the weight of the information term on the image side.
        text_beta: the same on the text side.
        steps: optimisation steps.
        samples: noise rows per step and repeat.
        learning_rate: Adam's, on alpha.
        mask_shape: the mask's shape on the image side.
        text_mask_shape: the same on the text side.
        seed: the noise's seed; each side draws from a generator of its own, seeded alike.
        repeats: independent runs; repeat k draws from a generator seeded with seed + k, so that it equals a single run
            with that seed.
    """

    beta: float
    text_beta: float
    steps: int
    samples: int
    learning_rate: float
    mask_shape: MaskShape
    text_mask_shape: MaskShape
    seed: int
    repeats: int = 1

    @property
    def rows(self) -> int:
        """The rows that a step evaluates."""
        return self.samples * self.repeats

    def beta_of(self, side: Side) -> float:
        """Return the weight of the information term on a side."""
        return self.beta if side is Side.IMAGE else self.text_beta

    def mask_shape_of(self, side: Side) -> MaskShape:
        """Return the mask's shape on a side."""
        return self.mask_shape if side is Side.IMAGE else self.text_mask_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The outcome for a pair.

    Attributes:
        similarity: the pair's cosine similarity without a bottleneck, in [-1, 1].
        image_embedding: normalised [1, embedding width], on the CPU.
        course: the steps that were done of each side, at least one each; the last one's bits are the attribution.
        is_partial: whether steps are missing.
    """

    similarity: float
    image_embedding: Tensor
    course: dict[Side, tuple[StepDone, ...]]
    is_partial: bool = False


def explain(
    image: EncoderInput, text: EncoderInput, settings: M2IBSettings, sides: Collection[Side]
) -> Method[Attribution]:
    """Explain a pair, the two sides independently of one another.

    Raises:
        EmbeddingUndefined: the image or the text has no direction.
        EvaluationFailed: a step came out not finite.
    """
    image_encoded, text_encoded = yield from encode((image, text))
    pair = PairEncoded(
        similarity=float((image_encoded.embedding * text_encoded.embedding).sum()),
        image_embedding=image_encoded.embedding.cpu(),
    )
    yield pair
    course: dict[Side, tuple[StepDone, ...]] = {}
    if Side.IMAGE in sides:
        course[Side.IMAGE] = yield from optimise(image_encoded, text_encoded.embedding, settings)
    if Side.TEXT in sides:
        course[Side.TEXT] = yield from optimise(text_encoded, image_encoded.embedding, settings)
    return Attribution(similarity=pair.similarity, image_embedding=pair.image_embedding, course=course)


def work(settings: M2IBSettings, sides: Collection[Side]) -> dict[Role, int]:
    """Return the rows that an explanation evaluates in all, by graph, when nothing of it is kept."""
    encoding = {role: 1 for side in Side for role in (HEAD[side], TAIL[side])}
    return encoding | {TAIL_GRAD[side]: settings.steps * settings.rows for side in sides}


def attribution_so_far(events: Sequence[Event]) -> Attribution | None:
    """Return the attribution of the steps that are done; None before the first."""
    pair = next((event for event in events if isinstance(event, PairEncoded)), None)
    steps = [event for event in events if isinstance(event, StepDone)]
    if pair is None or not steps:
        return None
    course = {side: tuple(step for step in steps if step.side is side) for side in Side}
    return Attribution(
        similarity=pair.similarity,
        image_embedding=pair.image_embedding,
        course={side: steps for side, steps in course.items() if steps},
        is_partial=True,
    )


def optimise(encoded: Encoded, target: Tensor, settings: M2IBSettings) -> Method[tuple[StepDone, ...]]:
    """Optimise one side's mask against the other side's embedding, target [1, embedding width]."""
    features, side, beta = encoded.features, encoded.side, settings.beta_of(encoded.side)
    alpha = initial_alpha(features, settings.mask_shape_of(side), repeats=settings.repeats)
    adam = torch.optim.Adam([alpha], lr=settings.learning_rate)
    seeds = [(settings.seed + repeat) % _SEEDS for repeat in range(settings.repeats)]
    generators = [torch.Generator(features.device).manual_seed(seed) for seed in seeds]
    course: list[StepDone] = []
    for step in range(1, settings.steps + 1):
        noise = _draw(generators, (settings.samples, *features.shape[1:]))
        noised = noised_features(features, alpha, noise)  # z: [repeats, samples, tokens, width]
        information = information_nats(features, alpha)  # [repeats, tokens, width]
        similarity, by_noised = yield tail_gradient(encoded, noised.flatten(0, 1), target)

        loss = beta * information.mean() - similarity.mean()  # of all repeats, each of which is optimised on its own
        alpha.grad = alpha_gradient(features, alpha, noise, by_noised.view_as(noise), beta=beta)
        adam.step()

        bits = information.sum(dim=-1).clamp(min=0) / math.log(2)
        done = StepDone(
            side=side,
            step=step,
            steps=settings.steps,
            loss=float(loss),
            similarity=float(similarity.mean()),
            repeat_bits=bits.cpu(),
        )
        if not (math.isfinite(done.loss) and math.isfinite(done.similarity)):
            raise EvaluationFailed
        course.append(done)
        yield done
    return tuple(course)


def _draw(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal noise [generators, *shape]."""
    return torch.stack([torch.randn(shape, generator=each, device=each.device) for each in generators])
