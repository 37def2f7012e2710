"""Fitting keeps the image's geometry exactly, for every fit and every odd size."""

import numpy as np
import pytest

from m2ib_server.errors import TensorInvalid
from m2ib_server.imaging import (
    Fit,
    FittedImage,
    ImageFormat,
    ModelInput,
    RenderedImage,
    Rendering,
    Resampling,
    check_tensor,
    fit_image,
    render_tensor,
)

MODEL = ModelInput(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), resampling=Resampling.BICUBIC)
GREY_MODEL = ModelInput(size=32, mean=(0.5,), std=(0.25,), resampling=Resampling.BILINEAR)
SIZES = [(301, 517), (517, 301), (64, 64), (32, 32), (1, 7), (7, 1), (1, 1), (33, 31), (1000, 3)]


def image(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], pixel_aspect: float = 1.0) -> RenderedImage:
    return RenderedImage(pixels=pixels, rendering=Rendering(format=ImageFormat.PNG), pixel_aspect=pixel_aspect)


def white(height: int, width: int) -> RenderedImage:
    return image(np.full((height, width), 255, dtype=np.uint8))


def corners(fitted: FittedImage) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the model input's outer corners lie in the original."""
    size = fitted.pixel_values.shape[-1]
    return fitted.model_to_original.apply(0, 0), fitted.model_to_original.apply(size, size)


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("model_input", [MODEL, GREY_MODEL], ids=["rgb", "grey"])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey image", "rgb image"])
def test_model_input_has_the_models_shape(fit: Fit, model_input: ModelInput, channels: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, *channels), dtype=np.uint8)
    values = fit_image(image(pixels), model_input, fit).pixel_values
    assert values.shape == model_input.shape
    assert values.dtype == np.float32
    assert values.flags.c_contiguous


def test_values_are_normalised_per_channel() -> None:
    values = fit_image(white(40, 40), MODEL, Fit.STRETCH).pixel_values
    expected = [(1 - mean) / std for mean, std in zip(MODEL.mean, MODEL.std, strict=True)]
    np.testing.assert_allclose(values, np.broadcast_to(np.reshape(expected, (3, 1, 1)), (3, 32, 32)), rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_letterbox_holds_the_whole_image(height: int, width: int) -> None:
    fitted = fit_image(white(height, width), GREY_MODEL, Fit.LETTERBOX)
    is_image = fitted.pixel_values[0] > 0
    rows, columns = np.flatnonzero(is_image.any(axis=1)), np.flatnonzero(is_image.any(axis=0))
    forward = fitted.model_to_original.inverse()
    left, top = forward.apply(0, 0)
    right, bottom = forward.apply(width, height)
    # The affine's image borders are exactly the borders of what was drawn.
    assert (left, right) == pytest.approx((columns[0], columns[-1] + 1))
    assert (top, bottom) == pytest.approx((rows[0], rows[-1] + 1))
    assert max(right - left, bottom - top) == pytest.approx(32)


def test_the_rest_of_a_letterbox_is_black() -> None:
    values = fit_image(white(10, 40), MODEL, Fit.LETTERBOX).pixel_values
    black = [-mean / std for mean, std in zip(MODEL.mean, MODEL.std, strict=True)]
    np.testing.assert_allclose(values[:, 0, 0], black, rtol=1e-6)
    np.testing.assert_allclose(values[:, -1, -1], black, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_stretch_covers_the_whole_image(height: int, width: int) -> None:
    fitted = fit_image(white(height, width), GREY_MODEL, Fit.STRETCH)
    first, last = corners(fitted)
    assert first == (0, 0)
    assert last == pytest.approx((width, height))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_centre_crop_covers_the_short_side(height: int, width: int) -> None:
    (left, top), (right, bottom) = corners(fit_image(white(height, width), GREY_MODEL, Fit.CENTRE_CROP))
    assert min(right - left, bottom - top) == pytest.approx(min(height, width), rel=0.04)
    assert left >= 0
    assert top >= 0
    assert right <= width + 1e-6
    assert bottom <= height + 1e-6
    if width <= height:
        assert (left, right) == pytest.approx((0, width))
    else:
        assert (top, bottom) == pytest.approx((0, height))


def test_the_longest_strip_is_cropped_without_being_resized_whole() -> None:
    strip = np.zeros((4, 400_000), dtype=np.uint8)
    strip[:, 199_998:200_002] = 255
    fitted = fit_image(image(strip), GREY_MODEL, Fit.CENTRE_CROP)  # whole, it would have 100 million pixels
    assert fitted.pixel_values.max() > 1.5
    (left, _), (right, _) = corners(fitted)
    assert (left, right) == pytest.approx((199_998, 200_002), abs=0.1)


@pytest.mark.parametrize("aspect", [2.0, 0.5])
def test_pixels_that_are_not_square_get_their_true_shape(aspect: float) -> None:
    fitted = fit_image(image(np.full((20, 20), 255, dtype=np.uint8), aspect), GREY_MODEL, Fit.LETTERBOX)
    is_image = fitted.pixel_values[0] > 0
    height, width = is_image.any(axis=1).sum(), is_image.any(axis=0).sum()
    assert height / width == pytest.approx(aspect)


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 0, "mean": (0.5,), "std": (0.5,)},
        {"size": 8, "mean": (0.5, 0.5), "std": (0.5, 0.5)},
        {"size": 8, "mean": (0.5,), "std": (0.5, 0.5, 0.5)},
        {"size": 8, "mean": (0.5,), "std": (0.0,)},
    ],
)
def test_a_model_input_that_cannot_be_filled_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a model input has"):
        ModelInput(resampling=Resampling.BICUBIC, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(10,), (4, 4, 2), (0, 4)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no image"):
        image(np.zeros(shape, dtype=np.uint8))


def test_a_rendered_image_cannot_be_changed_and_does_not_show_itself() -> None:
    rendered = white(3, 3)
    with pytest.raises(ValueError, match="read-only"):
        rendered.pixels[0, 0] = 1
    assert "255" not in repr(rendered)


def test_a_tensor_is_its_own_original() -> None:
    values = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    fitted = check_tensor(values, MODEL)
    np.testing.assert_array_equal(fitted.pixel_values, values)
    assert fitted.model_to_original.apply(3, 4) == (3, 4)


def test_a_tensor_that_is_read_only_becomes_memory_that_torch_takes_without_a_warning() -> None:
    values = np.frombuffer(bytes(4 * 3 * 32 * 32), "<f4").reshape(3, 32, 32)
    assert check_tensor(values, MODEL).pixel_values.flags.writeable


@pytest.mark.parametrize("shape", [(3, 32, 31), (1, 32, 32), (32, 32, 3), (3072,)])
def test_a_tensor_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorInvalid, match=r"allowed: shape \[3, 32, 32\]"):
        check_tensor(np.zeros(shape, dtype=np.float32), MODEL)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_refused(value: float) -> None:
    values = np.zeros((3, 32, 32), dtype=np.float32)
    values[1, 2, 3] = value
    with pytest.raises(TensorInvalid, match="seen 1 values that are not finite"):
        check_tensor(values, MODEL)


@pytest.mark.parametrize("value", [1.0001e4, -1e38, 3.4e38])
def test_a_tensor_of_values_that_no_image_has_is_refused(value: float) -> None:
    values = np.full((3, 32, 32), 1e4, dtype=np.float32)
    assert check_tensor(values, MODEL).pixel_values.max() == 1e4
    values[1, 2, 3] = value
    with pytest.raises(
        TensorInvalid, match=r"seen 1 values beyond \+-10000; allowed: values of magnitude at most 10000"
    ):
        check_tensor(values, MODEL)


def test_showing_a_tensor_never_overflows() -> None:
    values = np.full((3, 32, 32), -3.4e38, dtype=np.float32)
    values[0] *= -1
    with np.errstate(all="raise"):
        assert render_tensor(values, MODEL).pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("model_input", [MODEL, GREY_MODEL], ids=["rgb", "grey"])
def test_a_tensor_is_shown_as_the_image_it_came_from(model_input: ModelInput) -> None:
    shape = (32, 32, 3) if model_input is MODEL else (32, 32)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    fitted = fit_image(image(pixels), model_input, Fit.STRETCH)
    shown = render_tensor(fitted.pixel_values, model_input)
    np.testing.assert_array_equal(shown.pixels, pixels)
    assert shown.rendering.format is ImageFormat.TENSOR
