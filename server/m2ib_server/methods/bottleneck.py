"""The information bottleneck over one layer's features: its mask, its noise, the information it lets through.

Schulz et al., "Restricting the Flow: Information Bottlenecks for Attribution", ICLR 2020; as used by Wang, Rudner &
Wilson, "Visual Explanations of Image-Text Representations via Multi-Modal Information Bottleneck Attribution",
NeurIPS 2023. Pure tensor arithmetic in float32; everything is written in forms that neither overflow nor cancel.
"""

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn.functional import softplus

INITIAL_ALPHA = 5.0  # lambda = sigmoid(5) = 0.993: nearly everything passes at first


class MaskShape(StrEnum):
    """Over which dimensions of the features [tokens, width] the mask has values of its own."""

    CHANNEL = "channel"
    TOKEN = "token"  # noqa: S105 a shape, no secret


def initial_alpha(features: Tensor, shape: MaskShape, *, repeats: int) -> Tensor:
    """Return the free parameters of masks over features [1, tokens, width].

    Returned: [repeats, tokens, width] or [repeats, tokens, 1].
    """
    like = features if shape is MaskShape.CHANNEL else features[..., :1]
    return torch.full_like(like.expand(repeats, -1, -1), INITIAL_ALPHA)


def noised_features(features: Tensor, alpha: Tensor, noise: Tensor) -> Tensor:
    """Mix features with noise: z = lambda x + (1 - lambda) eps, with lambda = sigmoid(alpha).

    features: [1, tokens, width]; alpha: [repeats, tokens, width or 1]; noise, standard normal, and what is returned:
    [repeats, samples, tokens, width].
    """
    keep = torch.sigmoid(alpha)
    noise_std = torch.sigmoid(-alpha)  # 1 - lambda without cancellation
    return (keep * features)[:, None] + noise_std[:, None] * noise


def information_nats(features: Tensor, alpha: Tensor) -> Tensor:
    """Information each element lets through: KL[N(lambda x, (1 - lambda)^2) || N(0, 1)], in nats, >= 0.

    features: [1, tokens, width]; alpha: [repeats, tokens, width or 1]; returned: [repeats, tokens, width].
    """
    mean = torch.sigmoid(alpha) * features
    variance = torch.sigmoid(-alpha).square()
    log_variance = -2 * softplus(alpha)  # log (1 - lambda)^2; the naive form is -inf at alpha > 17
    return 0.5 * (mean.square() + variance - 1 - log_variance)


def alpha_gradient(features: Tensor, alpha: Tensor, noise: Tensor, by_noised: Tensor, *, beta: float) -> Tensor:
    """Gradient by alpha of beta x mean information - mean similarity, of each repeat on its own.

    In closed form, which takes less time than autograd does (bench/mask.py). With lambda = sigmoid(alpha):
        d z / d alpha = lambda (1 - lambda) (x - eps)
        d information / d alpha = lambda (1 - lambda) (lambda x^2 - (1 - lambda)) + lambda

    features: [1, tokens, width]; alpha: [repeats, tokens, width or 1]; noise, and by_noised, the gradient of each row's
    similarity by z: [repeats, samples, tokens, width]. Returned: as alpha; of a mask per token the sum over channels.
    """
    keep, noise_std = torch.sigmoid(alpha), torch.sigmoid(-alpha)
    slope = keep * noise_std
    fit = slope * (features * by_noised.mean(dim=1) - (by_noised * noise).mean(dim=1))
    information = slope * (keep * features.square() - noise_std) + keep
    tokens, width = features.shape[1:]
    by_element = beta / (tokens * width) * information - fit
    return by_element if alpha.shape[-1] == width else by_element.sum(dim=-1, keepdim=True)
