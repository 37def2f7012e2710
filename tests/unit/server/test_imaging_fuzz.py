"""Whatever the bytes, an image comes out or an InvalidField does, and no text of it quotes the bytes."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.image_files import SEEDS
from film_mutants import films
from knock import CANARY
from m2ib_server.errors import InvalidField
from m2ib_server.imaging import ImageLimits, render
from mutants import damaged, scaled

LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=1 << 20)


def check(encoded: bytes) -> None:
    try:
        image = render(encoded, limits=LIMITS)
    except InvalidField as refusal:
        assert refusal.field.startswith("image.")
        assert CANARY not in str(refusal)
    else:
        assert image.pixels.dtype == np.uint8
        assert image.height * image.width <= LIMITS.max_pixels


@settings(max_examples=scaled(100), deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_are_answered(encoded: bytes) -> None:
    check(encoded)


@settings(max_examples=scaled(100), deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_behind_a_dicom_prefix_are_answered(tail: bytes) -> None:
    check(bytes(128) + b"DICM" + tail)


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=scaled(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8), early=st.booleans()
)
def test_changed_bytes_are_answered(name: str, changes: list[tuple[float, int]], *, early: bool) -> None:
    encoded = bytearray(SEEDS[name]())
    reach = min(len(encoded), 900) if early else len(encoded)  # headers stand at the start
    for position, value in changes:
        encoded[int(position * reach)] = value
    check(bytes(encoded))


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=scaled(15), deadline=None)
@given(kept=st.floats(0, 1))
def test_cut_files_are_answered(name: str, kept: float) -> None:
    encoded = SEEDS[name]()
    check(encoded[: int(len(encoded) * kept)])


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=scaled(15), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_files_with_bytes_added_and_taken_away_are_answered(name: str, data: st.DataObject) -> None:
    check(data.draw(damaged(SEEDS[name]())))


@settings(max_examples=scaled(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(film=films())
def test_films_with_broken_elements_are_answered(film: bytes) -> None:
    check(film)
