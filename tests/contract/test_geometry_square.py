"""What the model sees as one patch lands on that patch's place in the original, whatever was done to the image."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from m2ib_server.imaging import (
    Fit,
    FittedImage,
    ImageLimits,
    ModelInput,
    RenderedImage,
    Resampling,
    fit_image,
    grid_to_original,
    model_map,
    original_map,
    render,
)

MODEL = ModelInput(size=224, mean=(0.5,), std=(0.5,), resampling=Resampling.BICUBIC)
GRID = 14
SIZES = [(301, 517), (517, 301), (64, 64), (64, 200), (1200, 801), (223, 225)]
# Where the square's centre stands, as fractions of what a centre crop leaves.
PLACES = [(0.5, 0.5), (0.2, 0.3), (0.8, 0.75), (0.35, 0.85)]


def stored_square(height: int, width: int, place: tuple[float, float], orientation: int = 1) -> bytes:
    """A PNG with one bright square, which is stored under an EXIF orientation."""
    pixels = np.zeros((height, width), dtype=np.uint8)
    side = min(height, width)
    row = int((height - side) / 2 + place[0] * side)
    column = int((width - side) / 2 + place[1] * side)
    reach = max(1, side // 28)
    pixels[row - reach : row + reach, column - reach : column + reach] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", exif=exif)
    return stream.getvalue()


def square_centre(image: RenderedImage) -> tuple[float, float]:
    """The centre (x, y) of the bright pixels, in outer-corner coordinates."""
    rows, columns = np.nonzero(image.pixels)
    return columns.mean() + 0.5, rows.mean() + 0.5


def brightness_grid(fitted: FittedImage) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The mean brightness of each patch of the model's input: what a perfect explanation of the square would be."""
    patch = MODEL.size // GRID
    brightness: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
        fitted.pixel_values[0].reshape(GRID, patch, GRID, patch).mean(axis=(1, 3))
    )
    return brightness


def check_registration(image: RenderedImage, fit: Fit) -> None:
    fitted = fit_image(image, MODEL, fit)
    grid = brightness_grid(fitted)
    x, y = square_centre(image)
    to_original = grid_to_original(fitted, rows=GRID, columns=GRID)

    row, column = divmod(int(grid.argmax()), GRID)
    (left, top), (right, bottom) = to_original.apply(column, row), to_original.apply(column + 1, row + 1)
    assert abs((left + right) / 2 - x) <= to_original.xx
    assert abs((top + bottom) / 2 - y) <= to_original.yy

    shown = original_map(model_map(grid, MODEL.size), fitted, height=image.height, width=image.width)
    peak_row, peak_column = np.unravel_index(np.nanargmax(shown), shown.shape)
    assert abs(peak_column + 0.5 - x) <= to_original.xx
    assert abs(peak_row + 0.5 - y) <= to_original.yy


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("place", PLACES)
def test_the_peak_lands_on_the_square(height: int, width: int, place: tuple[float, float], fit: Fit) -> None:
    limits = ImageLimits(max_bytes=1 << 22, max_pixels=1 << 22)
    check_registration(render(stored_square(height, width, place), limits=limits), fit)


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_peak_lands_on_the_square_of_a_turned_photograph(orientation: int, fit: Fit) -> None:
    limits = ImageLimits(max_bytes=1 << 22, max_pixels=1 << 22)
    image = render(stored_square(301, 517, (0.25, 0.7), orientation), limits=limits)
    assert (image.height, image.width) == ((301, 517) if orientation <= 4 else (517, 301))
    check_registration(image, fit)
