"""Phantom films: repeatable, anatomically placed, and the same chest at every resolution."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from m2ib_export.demo.anatomy import Side, Zone
from m2ib_export.demo.corpus import INPUT_SIDE, fit_square, letterbox
from m2ib_export.demo.finding import ALL_FINDINGS, HABITS, Finding, Kind, sample_findings
from m2ib_export.demo.lesion import PAINTERS
from m2ib_export.demo.phantom import render_film

NORMAL_SHAPE = (128, 128)


def centre_of(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(rows.mean()) / mask.shape[0], float(columns.mean()) / mask.shape[1]


def test_same_seed_renders_the_same_film() -> None:
    first, second = render_film(11, NORMAL_SHAPE), render_film(11, NORMAL_SHAPE)
    assert np.array_equal(first.pixels, second.pixels)
    assert first.findings == second.findings


def test_seeds_render_different_films() -> None:
    assert not np.array_equal(render_film(11, NORMAL_SHAPE).pixels, render_film(12, NORMAL_SHAPE).pixels)


@pytest.mark.parametrize("table", [HABITS, PAINTERS], ids=["habits", "painters"])
def test_table_knows_every_kind(table: dict[Kind, object]) -> None:
    assert set(table) == set(Kind)


@pytest.mark.parametrize("finding", ALL_FINDINGS, ids=lambda f: f"{f.kind.value}-{f.side}-{f.zone}")
def test_mask_lies_on_its_side_and_in_its_zone(finding: Finding) -> None:
    films = [render_film(seed, NORMAL_SHAPE, (finding,)) for seed in range(5)]
    centres = [centre_of(film.masks[0]) for film in films]
    assert all(film.masks[0].any() for film in films)
    for row, column in centres:
        if finding.side is not None and finding.kind is not Kind.CENTRAL_LINE:
            assert (column < 0.5) == (finding.side is Side.RIGHT)
        if finding.zone is Zone.UPPER:
            assert row < 0.5
        if finding.zone is Zone.LOWER:
            assert row > 0.5


def test_central_line_enters_at_the_neck_on_its_side() -> None:
    for side in Side:
        mask = render_film(3, NORMAL_SHAPE, (Finding(kind=Kind.CENTRAL_LINE, side=side),)).masks[0]
        top_row = int(np.nonzero(mask)[0].min())
        column = float(np.nonzero(mask[top_row])[0].mean()) / NORMAL_SHAPE[1]
        assert (column < 0.5) == (side is Side.RIGHT)


@pytest.mark.parametrize("finding", ALL_FINDINGS, ids=lambda f: f"{f.kind.value}-{f.side}-{f.zone}")
def test_finding_changes_pixels_where_its_mask_says(finding: Finding) -> None:
    with_it, without = render_film(21, NORMAL_SHAPE, (finding,)), render_film(21, NORMAL_SHAPE, ())
    change = np.abs(with_it.pixels - without.pixels)
    mask = with_it.masks[0]
    assert change[mask].mean() > 0.02
    assert change[mask].mean() > 5 * change[~mask].mean()


def test_film_keeps_its_anatomy_at_other_resolutions() -> None:
    small, large = render_film(5, NORMAL_SHAPE), render_film(5, (512, 512))
    shrunk = letterbox(large.pixels_u8).astype(float) / 255
    assert small.findings == large.findings
    assert np.corrcoef(small.pixels.ravel(), shrunk.ravel())[0, 1] > 0.99
    for fine, coarse in zip(large.masks, small.masks, strict=True):
        assert fine.mean() == pytest.approx(coarse.mean(), rel=0.2)


def test_bones_and_abdomen_are_bright_and_lungs_and_air_dark() -> None:
    pixels = render_film(2, (256, 256), ()).pixels
    spine, corner = pixels[200:230, 120:136].mean(), pixels[4:14, 4:14].mean()
    assert spine > 0.5
    assert corner < 0.1


def test_sampled_findings_never_share_a_territory() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        found = sample_findings(rng)
        assert len({finding.territory for finding in found}) == len(found)
        assert len({finding.kind for finding in found}) == len(found)


def test_impossible_count_and_size_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 3"):
        sample_findings(np.random.default_rng(0), count=4)
    with pytest.raises(ValueError, match="at least 32"):
        render_film(0, (16, 128))


def test_letterbox_centres_an_oblong_film_between_black_bars() -> None:
    boxed = letterbox(np.full((100, 50), 200, np.uint8))
    assert boxed.shape == (INPUT_SIDE, INPUT_SIDE)
    assert boxed[:, :30].max() == 0
    assert boxed[:, 98:].max() == 0
    assert boxed[:, 34:94].min() == 200


def test_fitted_mask_keeps_its_share_of_the_film() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[64:128, 64:128] = 255
    assert fit_square(mask, INPUT_SIDE, Image.Resampling.BOX).mean() == pytest.approx(255 / 16)
