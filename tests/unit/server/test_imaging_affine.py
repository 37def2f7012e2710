"""Affine maps compose, invert and apply as planes do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2ib_server.imaging import Affine

NUMBERS = st.floats(-100, 100)
SCALES = st.floats(0.01, 100)
MAPS = st.builds(Affine, xx=SCALES, xy=NUMBERS, x0=NUMBERS, yx=st.just(0.0), yy=SCALES, y0=NUMBERS)
POINTS = st.tuples(NUMBERS, NUMBERS)


def test_a_scaling_scales_and_shifts() -> None:
    assert Affine.scaling(2, 3, x0=10, y0=20).apply(1, 1) == (12, 23)


@given(MAPS, MAPS, POINTS)
def test_after_applies_the_other_map_first(second: Affine, first: Affine, point: tuple[float, float]) -> None:
    expected = second.apply(*first.apply(*point))
    assert second.after(first).apply(*point) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(st.builds(Affine.scaling, SCALES, SCALES, x0=NUMBERS, y0=NUMBERS), POINTS)
def test_inverse_goes_back(forward: Affine, point: tuple[float, float]) -> None:
    assert forward.inverse().apply(*forward.apply(*point)) == pytest.approx(point, rel=1e-9, abs=1e-6)


def test_inverse_of_a_turned_map_goes_back() -> None:
    turned = Affine(xx=0, xy=-2, x0=3, yx=1, yy=0.5, y0=-4)
    assert not turned.is_axis_aligned
    assert turned.inverse().apply(*turned.apply(5, 7)) == pytest.approx((5, 7))


def test_a_flat_map_has_no_inverse() -> None:
    with pytest.raises(ValueError, match="determinant 0"):
        Affine.scaling(0, 1).inverse()
