import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.functional import normalize

from m2ib_export.attribution import Plan, information_bits
from m2ib_export.demo.attribution import BottleneckPlan, attribute
from m2ib_export.gradient import similarity_and_gradient
from m2ib_export.map_parity import rank_correlation


def tail(features):
    return (features.tanh() * torch.linspace(-1, 2, features.shape[1])[:, None]).sum(dim=1)


@pytest.mark.parametrize("mask_shape", ["channel", "token"])
def test_the_exporters_m2ib_is_the_demos(mask_shape):
    """The demo differentiates everything with autograd; here the tail gives its gradient, as a graph does."""
    draw = torch.Generator().manual_seed(2)
    features, target = torch.randn(1, 9, 6, generator=draw), normalize(torch.randn(1, 6, generator=draw), dim=-1)
    (expected,) = attribute(tail, features, target, BottleneckPlan(beta=0.3, mask_shape=mask_shape, seed=4))
    plan = Plan(beta=0.3, is_per_channel=mask_shape == "channel", seed=4)
    ours = information_bits(lambda rows: similarity_and_gradient(tail, rows, target), features, plan)
    torch.testing.assert_close(ours, expected.bits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [2, 16, 49])
def test_the_rank_correlation_is_spearmans(count):
    left, right = np.random.default_rng(count).standard_normal((2, count))
    assert rank_correlation(left, right) == pytest.approx(spearmanr(left, right).statistic)
    assert rank_correlation(left, np.exp(left)) == 1


def test_a_map_that_is_no_number_has_no_rank():
    left = np.arange(4.0)
    assert np.isnan(rank_correlation(left, np.array([0, 1, np.nan, 2])))
    assert np.isnan(rank_correlation(np.array([0, 1, np.inf, 2]), left))
