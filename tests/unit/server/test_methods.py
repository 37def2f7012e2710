import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import normalize

from fakes.graphs import FakeGraphs, encoder_input
from m2ib_server.errors import EmbeddingUndefined, EvaluationFailed
from m2ib_server.methods import (
    Evaluation,
    Event,
    M2IBSettings,
    MaskShape,
    Side,
    StepDone,
    attribution_so_far,
    explain,
    score,
    score_work,
    spread_of,
    work,
)
from m2ib_server.methods.bottleneck import alpha_gradient, information_nats, initial_alpha, noised_features
from m2ib_server.package import Role

SETTINGS = M2IBSettings(
    beta=0.1,
    text_beta=0.1,
    steps=4,
    samples=3,
    learning_rate=1.0,
    mask_shape=MaskShape.CHANNEL,
    text_mask_shape=MaskShape.CHANNEL,
    seed=7,
)


def run(method, graphs):
    """Run a method to its end, as an engine would with one job."""
    steps, answer = [], None
    while True:
        try:
            wanted = method.send(answer)
        except StopIteration as stop:
            return stop.value, steps
        if isinstance(wanted, Event):
            steps += [wanted] if isinstance(wanted, StepDone) else []
            answer = ()
        else:
            several = wanted if isinstance(wanted, tuple) else (wanted,)
            answer = tuple(tensor for each in several for tensor in graphs.run(each.role, each.inputs))


def explained(graphs=None, **changes):
    settings = M2IBSettings(**{**{name: getattr(SETTINGS, name) for name in SETTINGS.__slots__}, **changes})
    pair = encoder_input(Side.IMAGE, 1), encoder_input(Side.TEXT, 2)
    return run(explain(*pair, settings, tuple(Side)), graphs or FakeGraphs())[0]


def test_information_is_the_kl_divergence_from_the_standard_normal():
    draw = torch.Generator().manual_seed(1)
    features, alpha = torch.randn(1, 4, 6, generator=draw), torch.randn(1, 4, 6, generator=draw) * 3
    keep = torch.sigmoid(alpha.double())  # 1 - keep has few digits left in single precision
    expected = kl_divergence(Normal(keep * features, 1 - keep), Normal(torch.zeros(()), torch.ones(())))
    torch.testing.assert_close(information_nats(features, alpha).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [-60.0, -17.0, 17.0, 60.0])
def test_information_and_its_gradient_stay_finite_where_the_naive_form_overflows(alpha):
    free, rows = torch.full((1, 2, 3), alpha), torch.ones(1, 4, 2, 3)
    information = information_nats(torch.ones(1, 2, 3), free)
    gradient = alpha_gradient(torch.ones(1, 2, 3), free, rows, rows, beta=1.0)
    assert torch.isfinite(information).all()
    assert torch.isfinite(gradient).all()
    assert (information >= -1e-6).all()


@pytest.mark.parametrize("shape", list(MaskShape))
@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_the_gradient_is_autograds(shape, scale):
    repeats, samples, tokens, width, beta = 2, 3, 4, 6, 0.7
    features, noise = torch.randn(1, tokens, width), torch.randn(repeats, samples, tokens, width)
    by_noised = torch.randn(repeats, samples, tokens, width)
    alpha = (torch.randn(repeats, tokens, width if shape is MaskShape.CHANNEL else 1) * scale).requires_grad_()
    information = information_nats(features, alpha).mean(dim=(1, 2)).sum()
    fit = (by_noised * noised_features(features, alpha, noise)).sum() / samples
    (expected,) = torch.autograd.grad(beta * information - fit, alpha)
    ours = alpha_gradient(features, alpha.detach(), noise, by_noised, beta=beta)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_mask_that_keeps_everything_adds_no_noise():
    features, noise = torch.randn(1, 4, 6), torch.randn(1, 3, 4, 6)
    kept = noised_features(features, torch.full((1, 4, 6), 60.0), noise)
    torch.testing.assert_close(kept, features.expand(1, 3, 4, 6))
    dropped = noised_features(features, torch.full((1, 4, 6), -60.0), noise)
    torch.testing.assert_close(dropped, noise)


@pytest.mark.parametrize(("shape", "size"), [(MaskShape.CHANNEL, (2, 4, 6)), (MaskShape.TOKEN, (2, 4, 1))])
def test_mask_has_one_value_per_channel_or_per_token(shape, size):
    alpha = initial_alpha(torch.randn(1, 4, 6), shape, repeats=2)
    assert alpha.shape == size
    assert (alpha == 5).all()


@pytest.mark.parametrize("shape", list(MaskShape))
def test_m2ib_equals_autograd_through_the_whole_tail(shape):
    graphs = FakeGraphs()
    ours = explained(graphs, mask_shape=shape)
    image, text = encoder_input(Side.IMAGE, 1), encoder_input(Side.TEXT, 2)
    features = image.inputs["rows"] @ graphs.head_weight
    target = normalize(graphs.embed(text.inputs["rows"] @ graphs.head_weight), dim=-1)
    width = features.shape[-1] if shape is MaskShape.CHANNEL else 1
    alpha = torch.full((1, features.shape[1], width), 5.0, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=1.0)
    generator = torch.Generator().manual_seed(7)
    for step in range(4):
        keep = torch.sigmoid(alpha)
        noise = torch.randn(3, *features.shape[1:], generator=generator)
        similarity = torch.cosine_similarity(graphs.embed(keep * features + (1 - keep) * noise), target)
        capacity = -0.5 * (1 + ((1 - keep) ** 2).log() - (keep * features) ** 2 - (1 - keep) ** 2)
        loss = 0.1 * capacity.mean() - similarity.mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert ours.course[Side.IMAGE][step].loss == pytest.approx(loss.item(), abs=1e-5)
    expected = capacity.detach()[0].sum(-1) / math.log(2)
    torch.testing.assert_close(ours.course[Side.IMAGE][-1].bits, expected, rtol=1e-4, atol=1e-4)


def test_same_seed_same_map_and_other_seed_another():
    first, again, other = explained(), explained(), explained(seed=8)
    assert torch.equal(first.course[Side.IMAGE][-1].bits, again.course[Side.IMAGE][-1].bits)
    assert not torch.equal(first.course[Side.IMAGE][-1].bits, other.course[Side.IMAGE][-1].bits)


@pytest.mark.parametrize("shape", list(MaskShape))
def test_a_repeat_equals_a_single_run_with_its_seed(shape):
    together = explained(seed=7, repeats=3, mask_shape=shape, text_mask_shape=shape)
    for side in Side:
        for repeat in range(3):
            alone = explained(seed=7 + repeat, mask_shape=shape, text_mask_shape=shape).course[side][-1].bits
            torch.testing.assert_close(together.course[side][-1].repeat_bits[repeat], alone, rtol=1e-4, atol=1e-4)
        mean = together.course[side][-1].repeat_bits.mean(dim=0)
        torch.testing.assert_close(together.course[side][-1].bits, mean)


def test_the_last_seed_of_all_is_followed_by_the_first():
    together = explained(seed=2**64 - 1, repeats=2).course[Side.IMAGE][-1].repeat_bits[1]
    torch.testing.assert_close(together, explained(seed=0).course[Side.IMAGE][-1].bits, rtol=1e-4, atol=1e-4)


def test_each_side_has_a_beta_of_its_own():
    plain, other = explained(beta=0.1, text_beta=0.1), explained(beta=0.1, text_beta=2.0)
    assert torch.equal(plain.course[Side.IMAGE][-1].bits, other.course[Side.IMAGE][-1].bits)
    assert other.course[Side.TEXT][-1].bits_kept < plain.course[Side.TEXT][-1].bits_kept


@pytest.mark.parametrize("shape", list(MaskShape))
def test_each_side_has_a_mask_shape_of_its_own(shape):
    other = MaskShape.TOKEN if shape is MaskShape.CHANNEL else MaskShape.CHANNEL
    mixed = explained(mask_shape=shape, text_mask_shape=other).course
    assert torch.equal(mixed[Side.IMAGE][-1].bits, explained(mask_shape=shape).course[Side.IMAGE][-1].bits)
    text = explained(mask_shape=other, text_mask_shape=other).course[Side.TEXT][-1].bits
    assert torch.equal(mixed[Side.TEXT][-1].bits, text)
    assert not torch.equal(text, explained(text_mask_shape=shape).course[Side.TEXT][-1].bits)


def test_work_counts_the_rows_that_an_explanation_evaluates():
    graphs = FakeGraphs()
    explained(graphs, repeats=2)
    evaluated = Counter()
    for role, rows in graphs.calls:
        evaluated[role] += rows
    settings = replace(SETTINGS, repeats=2)
    assert evaluated == Counter(work(settings, tuple(Side)))


def test_what_is_done_so_far_is_an_attribution():
    method = explain(encoder_input(Side.IMAGE, 1), encoder_input(Side.TEXT, 2), SETTINGS, tuple(Side))
    graphs, answer, events = FakeGraphs(), None, []
    while sum(isinstance(event, StepDone) for event in events) < 3:
        wanted = method.send(answer)
        if isinstance(wanted, Event):
            events.append(wanted)
            answer = ()
            if len(events) == 1:
                assert attribution_so_far(events) is None
            continue
        several = wanted if isinstance(wanted, tuple) else (wanted,)
        answer = tuple(tensor for each in several for tensor in graphs.run(each.role, each.inputs))
    partial, whole = attribution_so_far(events), explained()
    assert partial.is_partial
    assert not whole.is_partial
    assert set(partial.course) == {Side.IMAGE}
    assert partial.similarity == whole.similarity
    assert torch.equal(partial.course[Side.IMAGE][-1].bits, whole.course[Side.IMAGE][2].bits)


def test_the_spread_of_repeats_is_their_standard_deviation_and_rank_correlation():
    bits = torch.tensor([[1.0, 2.0, 3.0, 3.0], [2.0, 4.0, 8.0, 1.0], [5.0, 5.0, 5.0, 6.0]])
    spread = spread_of(bits)
    np.testing.assert_allclose(spread.std, bits.numpy().std(axis=0, ddof=1))
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean([spearmanr(bits[one], bits[other]).statistic for one, other in pairs])
    assert spread.stability == pytest.approx(expected)
    assert spread_of(bits[:1]) is None


def test_repeats_that_agree_on_nothing_but_a_constant_are_stable():
    assert spread_of(torch.ones(3, 4)).stability == 1
    assert spread_of(torch.tensor([[1.0, 1.0], [1.0, 2.0]])).stability == 0


def test_similarity_is_the_cosine_without_a_bottleneck():
    graphs = FakeGraphs()
    image, text = encoder_input(Side.IMAGE, 1), encoder_input(Side.TEXT, 2)
    embeddings = [graphs.embed(source.inputs["rows"] @ graphs.head_weight) for source in (image, text)]
    expected = torch.cosine_similarity(*embeddings).item()
    assert explained(graphs).similarity == pytest.approx(expected, abs=1e-6)


def test_only_the_sides_asked_for_are_optimised():
    graphs = FakeGraphs()
    method = explain(encoder_input(Side.IMAGE, 1), encoder_input(Side.TEXT, 2), SETTINGS, (Side.TEXT,))
    outcome, steps = run(method, graphs)
    assert set(outcome.course) == {Side.TEXT}
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert {step.side for step in steps} == {Side.TEXT}


def test_heads_and_target_embeddings_are_evaluated_once():
    graphs = FakeGraphs()
    explained(graphs)
    roles = [role.name for role, _ in graphs.calls]
    assert [roles.count(name) for name in ("VISION_HEAD", "TEXT_HEAD", "VISION_TAIL", "TEXT_TAIL")] == [1, 1, 1, 1]
    assert roles.count("VISION_TAIL_GRAD") == roles.count("TEXT_TAIL_GRAD") == 4


def test_noised_rows_are_never_kept():
    method = explain(encoder_input(Side.IMAGE, 1), encoder_input(Side.TEXT, 2), SETTINGS, tuple(Side))
    graphs, answer, digests = FakeGraphs(), None, {}
    for _ in range(7):
        wanted = method.send(answer)
        if isinstance(wanted, Event):
            answer = ()
            continue
        several = wanted if isinstance(wanted, tuple) else (wanted,)
        digests.update({each.role.name: each.digest for each in several})
        answer = tuple(tensor for each in several for tensor in graphs.run(each.role, each.inputs))
    assert digests["VISION_TAIL_GRAD"] is None
    assert all(digests[name] for name in ("VISION_HEAD", "VISION_TAIL", "TEXT_HEAD", "TEXT_TAIL"))


def test_score_is_the_matrix_of_cosines():
    graphs = FakeGraphs()
    images = [encoder_input(Side.IMAGE, seed) for seed in (1, 2)]
    texts = [encoder_input(Side.TEXT, seed, tokens=seed) for seed in (3, 4, 6)]
    matrix, _ = run(score(dict(enumerate(images)), texts, rows=2), graphs)
    assert matrix.shape == (2, 3)
    assert sum(rows for _, rows in graphs.calls) == sum(score_work(images, texts).values())
    for row, image in enumerate(images):
        for column, text in enumerate(texts):
            pair = [graphs.embed(source.inputs["rows"] @ graphs.head_weight) for source in (image, text)]
            assert matrix[row, column].item() == pytest.approx(torch.cosine_similarity(*pair).item(), abs=1e-5)


def test_an_evaluation_counts_its_rows():
    assert Evaluation(role=None, inputs={"rows": torch.zeros(7, 2)}).rows == 7


class OddGraphs(FakeGraphs):
    """Answers one role with a fixed value."""

    def __init__(self, role, value):
        super().__init__()
        self.role, self.value = role, value

    def run(self, role, inputs):
        outputs = super().run(role, inputs)
        return tuple(torch.full_like(output, self.value) for output in outputs) if role is self.role else outputs


ENCODING = [Role.VISION_HEAD, Role.VISION_TAIL, Role.TEXT_HEAD, Role.TEXT_TAIL]
ODD = [
    *((role, value) for role in ENCODING for value in (math.inf, -math.inf)),
    *((role, math.nan) for role in (Role.VISION_TAIL, Role.TEXT_TAIL)),
    *((role, 0.0) for role in (Role.VISION_TAIL, Role.TEXT_TAIL)),
]


@pytest.mark.parametrize(("role", "value"), ODD)
def test_an_embedding_without_a_direction_is_refused_and_its_source_named(role, value):
    side = "image" if role in (Role.VISION_HEAD, Role.VISION_TAIL) else "text"
    with pytest.raises(EmbeddingUndefined) as caught:
        explained(OddGraphs(role, value))
    assert caught.value.field == side
    sources = {3: encoder_input(Side.IMAGE, 1)}, [encoder_input(Side.TEXT, 2)]
    with pytest.raises(EmbeddingUndefined) as caught:
        run(score(*sources, rows=2), OddGraphs(role, value))
    assert caught.value.field == {"image": "images[3]", "text": "texts[0]"}[side]


def test_the_source_of_an_undefined_embedding_is_named_across_parts():
    images = {place: encoder_input(Side.IMAGE, place) for place in range(3)}
    texts = [encoder_input(Side.TEXT, seed) for seed in range(3)]
    texts[1].inputs["rows"].zero_()
    with pytest.raises(EmbeddingUndefined) as caught:
        run(score(images, texts, rows=2), FakeGraphs())
    assert caught.value.field == "texts[1]"


@pytest.mark.parametrize("role", [Role.VISION_TAIL_GRAD, Role.TEXT_TAIL_GRAD])
def test_a_step_that_is_not_finite_fails_and_is_not_told(role):
    with pytest.raises(EvaluationFailed):
        explained(OddGraphs(role, math.nan))
