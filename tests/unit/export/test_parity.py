import pytest

from m2ib_export.errors import ParityMissed
from m2ib_export.parity import THRESHOLDS, Figure, check_parity, judge
from m2ib_export.precision import Precision


def figure(name, error):
    return Figure(name=name, relative_error=error, threshold=1e-4)


def test_figures_below_their_thresholds_pass():
    check_parity((figure("vision_head.features", 0.0), figure("text_tail.embedding", 9.9e-5)))


@pytest.mark.parametrize("error", [1e-4, 0.5, float("inf"), float("nan")])
def test_a_figure_that_is_not_below_is_refused_by_name(error):
    with pytest.raises(ParityMissed) as refused:
        check_parity((figure("vision_head.features", 0.0), figure("vision_tail_grad.gradient", error)))
    assert f"vision_tail_grad.gradient: seen {error:.3g}; allowed: below 0.0001" in str(refused.value)
    assert "vision_head" not in str(refused.value)


def test_every_precision_has_a_threshold_for_all_that_is_compared():
    assert set(THRESHOLDS) == set(Precision)
    for thresholds in THRESHOLDS.values():
        assert set(thresholds) == {"features", "embedding", "similarity", "gradient", "rank", "own_rank"}


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_half_precision_is_judged_on_the_final_map_by_a_correlation_above_0995(precision):
    assert judge(("vision_map.rank", 1 - 0.9951), precision).is_met
    with pytest.raises(ParityMissed, match=r"vision_map\.rank: seen 0\.0051; allowed: below 0\.005"):
        check_parity((judge(("vision_map.rank", 1 - 0.9949), precision),))
