import pytest

from m2ib_export.errors import ParityMissed
from m2ib_export.parity import Figure, check_parity


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
