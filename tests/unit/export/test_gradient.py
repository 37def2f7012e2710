import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, normalize

from m2ib_export.gradient import similarity_and_gradient, trace_gradient


def mean_tail(features):
    return features.mean(dim=1)


def test_similarity_is_the_cosine_when_the_target_is_normalised():
    features, target = torch.randn(3, 4, 8), normalize(torch.randn(3, 8), dim=-1)
    similarity, _ = similarity_and_gradient(mean_tail, features, target)
    torch.testing.assert_close(similarity, cosine_similarity(features.mean(dim=1), target))


def test_the_target_is_taken_as_it_is():
    features, target = torch.randn(3, 4, 8), torch.randn(3, 8)
    single, double = (similarity_and_gradient(mean_tail, features, factor * target) for factor in (1, 2))
    for once, twice in zip(single, double, strict=True):
        torch.testing.assert_close(2 * once, twice)


def test_the_gradient_is_that_of_each_rows_own_similarity():
    features, target = torch.randn(2, 4, 8, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    _, gradient = similarity_and_gradient(mean_tail, features, target)
    step = torch.zeros_like(features)
    step[1, 2, 3] = 1e-6
    higher, lower = (similarity_and_gradient(mean_tail, features + sign * step, target)[0] for sign in (1, -1))
    assert (higher - lower)[0] == 0
    torch.testing.assert_close((higher - lower)[1] / 2e-6, gradient[1, 2, 3], rtol=1e-6, atol=1e-9)


def test_a_power_of_two_as_the_scale_changes_no_bit():
    features, target = torch.randn(3, 4, 8), normalize(torch.randn(3, 8), dim=-1)
    plain, scaled = (similarity_and_gradient(mean_tail, features, target, scale=scale) for scale in (1.0, 4096.0))
    for one, other in zip(plain, scaled, strict=True):
        assert torch.equal(one, other)


def test_a_tail_that_is_not_frozen_is_refused():
    with pytest.raises(ValueError, match="allowed: frozen parameters"):
        trace_gradient(nn.Linear(8, 8), (torch.randn(2, 8), torch.randn(2, 8)))


def test_an_example_of_one_row_is_refused():
    tail = nn.Linear(8, 8).requires_grad_(False)
    with pytest.raises(ValueError, match="example batch: seen 1; allowed: at least 2"):
        trace_gradient(tail, (torch.randn(1, 8), torch.randn(1, 8)))
