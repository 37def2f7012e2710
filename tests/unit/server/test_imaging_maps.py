"""Maps are normalised, registered to the original, and drawn over it."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from m2ib_server.imaging import (
    Affine,
    Fit,
    FittedImage,
    ImageFormat,
    ModelInput,
    RenderedImage,
    Rendering,
    Resampling,
    draw_overlay,
    encode_rendering,
    fit_image,
    grid_to_original,
    model_map,
    normalise,
    original_map,
)
from m2ib_server.imaging.colour import colour_table

MODEL = ModelInput(size=32, mean=(0.5,), std=(0.5,), resampling=Resampling.BICUBIC)


def film(height: int, width: int, shade: int = 100) -> RenderedImage:
    pixels = np.full((height, width), shade, dtype=np.uint8)
    return RenderedImage(pixels=pixels, rendering=Rendering(format=ImageFormat.PNG))


def decoded(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(BytesIO(png)))


@given(arrays(np.float32, (3, 4), elements=st.floats(0, 1e6, width=32)))
def test_normalised_maps_span_0_to_1(values: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    scaled = normalise(values)
    if values.min() == values.max():
        assert not scaled.any()
    else:
        assert (scaled.min(), scaled.max()) == (0, 1)
        assert scaled.flat[values.argmax()] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_a_fault(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        normalise(np.array([[0, value]], dtype=np.float32))


def test_a_constant_grid_gives_an_empty_map() -> None:
    assert not model_map(np.full((4, 4), 3, dtype=np.float32), 32).any()


@pytest.mark.parametrize(("height", "width"), [(100, 60), (60, 100), (5, 9)])
def test_only_a_crop_leaves_pixels_unevaluated(height: int, width: int) -> None:
    saliency = np.ones((32, 32), dtype=np.float32)
    for fit in (Fit.LETTERBOX, Fit.STRETCH):
        fitted = fit_image(film(height, width), MODEL, fit)
        assert (original_map(saliency, fitted, height=height, width=width) == 1).all()
    fitted = fit_image(film(height, width), MODEL, Fit.CENTRE_CROP)
    shown = original_map(saliency, fitted, height=height, width=width)
    assert shown.shape == (height, width)
    assert shown.dtype == np.float32
    assert shown.flags.c_contiguous
    (left, top), (right, bottom) = (fitted.model_to_original.apply(at, at) for at in (0, 32))
    for row, column in np.ndindex(height, width):
        is_inside = left <= column + 0.5 <= right and top <= row + 0.5 <= bottom
        assert np.isnan(shown[row, column]) != is_inside


def test_a_map_is_sampled_at_pixel_centres() -> None:
    saliency = np.arange(4, dtype=np.float32)[np.newaxis, :].repeat(4, axis=0)
    fitted = FittedImage(pixel_values=np.zeros((1, 4, 4), dtype=np.float32), model_to_original=Affine.scaling(2.0, 2.0))
    shown = original_map(saliency, fitted, height=8, width=8)
    np.testing.assert_allclose(shown[0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


def test_a_turned_fit_is_a_fault() -> None:
    fitted = FittedImage(
        pixel_values=np.zeros((1, 4, 4), dtype=np.float32),
        model_to_original=Affine(xx=0, xy=1, x0=0, yx=1, yy=0, y0=0),
    )
    with pytest.raises(ValueError, match="axis-aligned"):
        original_map(np.zeros((4, 4), dtype=np.float32), fitted, height=4, width=4)


def test_grid_corners_lie_on_the_originals_corners() -> None:
    fitted = fit_image(film(70, 50), MODEL, Fit.STRETCH)
    to_original = grid_to_original(fitted, rows=4, columns=8)
    assert to_original.apply(0, 0) == (0, 0)
    assert to_original.apply(8, 4) == pytest.approx((50, 70))
    assert to_original.apply(1, 1) == pytest.approx((50 / 8, 70 / 4))


def test_lightness_of_the_colours_rises_evenly() -> None:
    linear = (colour_table() / 255.0) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.cbrt(luminance)
    steps = np.diff(lightness[::16])
    assert (steps > 0).all()
    assert steps.max() < 3 * steps.min()


def test_where_the_map_is_zero_the_film_is_untouched() -> None:
    overlay = decoded(draw_overlay(film(20, 30), np.zeros((20, 30), dtype=np.float32)))
    assert overlay.shape == (20, 30, 3)
    assert (overlay == 100).all()


def test_the_overlay_grows_with_the_value_and_the_film_shows_through() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32)[np.newaxis, :].repeat(4, axis=0)
    dark, bright = (decoded(draw_overlay(film(4, 256, shade), values)).astype(int) for shade in (50, 200))
    distance = np.abs(dark[0] - 50).sum(axis=1)
    assert (np.diff(distance[::32]) > 0).all()
    assert (bright - dark).min() >= 50


def test_colour_films_keep_their_colour_under_the_map() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8) + np.array([10, 120, 230], dtype=np.uint8)
    image = RenderedImage(pixels=pixels, rendering=Rendering(format=ImageFormat.PNG))
    overlay = decoded(draw_overlay(image, np.zeros((4, 4), dtype=np.float32)))
    np.testing.assert_array_equal(overlay, pixels)


def test_what_was_not_evaluated_is_hatched() -> None:
    values = np.zeros((200, 200), dtype=np.float32)
    values[:50] = np.nan
    overlay = decoded(draw_overlay(film(200, 200), values))
    assert (overlay[50:] == 100).all()
    shades = set(np.unique(overlay[:50]))
    assert len(shades) == 2
    assert 100 not in shades
    share = (overlay[:50, :, 0] == max(shades)).mean()
    assert 0.1 < share < 0.4


def test_an_overlay_needs_a_map_of_the_images_size() -> None:
    with pytest.raises(ValueError, match="over an image"):
        draw_overlay(film(4, 4), np.zeros((4, 5), dtype=np.float32))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_a_rendering_is_the_image_itself(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = RenderedImage(pixels=pixels, rendering=Rendering(format=ImageFormat.PNG))
    np.testing.assert_array_equal(decoded(encode_rendering(image)), pixels)
