"""The grey scale of a DICOM image: which rule is in force, and what it makes of each value."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fakes.dicom_files import dicom_file, lookup_table, stored_file
from m2ib_server.errors import ImageUndecodable
from m2ib_server.imaging import ImageLimits, RenderedImage, Window, WindowSource, render
from m2ib_server.imaging.greyscale import VoiFunction, window_fractions

LIMITS = ImageLimits(max_bytes=1 << 24, max_pixels=1 << 22)
VALUES = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
TWELVE_BITS: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}


def rendered(encoded: bytes, window: Window | None = None) -> RenderedImage:
    return render(encoded, limits=LIMITS, window=window)


def linear(values: np.ndarray[Any, Any], center: float, width: float) -> np.ndarray[Any, Any]:
    """PS3.3 C.11.2.1.2.1, written out case by case."""
    out = np.empty(values.shape)
    for at, value in np.ndenumerate(values):
        if value <= center - 0.5 - (width - 1) / 2:
            out[at] = 0
        elif value > center - 0.5 + (width - 1) / 2:
            out[at] = 255
        else:
            out[at] = ((value - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(out)


@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000, 500), (40.5, 1), (300, 2)])
def test_the_linear_window_is_the_standards(center: float, width: float) -> None:
    image = rendered(dicom_file(VALUES, WindowCenter=center, WindowWidth=width, **TWELVE_BITS))
    np.testing.assert_array_equal(image.pixels, linear(VALUES, center, width))
    assert image.rendering.window_source is WindowSource.WINDOW


def test_linear_exact_and_sigmoid_are_the_standards() -> None:
    values = np.array([0.0, 50.0, 100.0, 150.0, 200.0])
    window = Window(center=100, width=100)
    exact = window_fractions(values, window, VoiFunction.LINEAR_EXACT)
    np.testing.assert_allclose(np.clip(exact, 0, 1), [0, 0, 0.5, 1, 1])
    sigmoid = window_fractions(values, window, VoiFunction.SIGMOID)
    np.testing.assert_allclose(sigmoid, [1 / (1 + math.exp(-4 * (value - 100) / 100)) for value in values])


@given(center=st.floats(-1e6, 1e6), width=st.floats(1, 1e6), function=st.sampled_from(VoiFunction))
def test_every_window_rises_with_the_value(center: float, width: float, function: VoiFunction) -> None:
    values = np.linspace(-2e6, 2e6, 101)
    fractions = window_fractions(values, Window(center=center, width=width), function)
    assert (np.diff(fractions) >= 0).all()


def test_a_request_overrides_everything() -> None:
    encoded = dicom_file(
        VALUES, WindowCenter=9, WindowWidth=9, VOILUTSequence=lookup_table([0, 9], first=0, bits=16), **TWELVE_BITS
    )
    window = Window(center=2000, width=3000)
    image = rendered(encoded, window)
    np.testing.assert_array_equal(image.pixels, linear(VALUES, 2000, 3000))
    assert image.rendering.window_source is WindowSource.REQUEST
    assert image.rendering.window == window


def test_the_first_of_two_windows_is_in_force() -> None:
    encoded = dicom_file(VALUES, WindowCenter=[2000, 100], WindowWidth=[1000, 50], **TWELVE_BITS)
    assert rendered(encoded).rendering.window == Window(center=2000, width=1000)


def test_a_voi_table_comes_before_a_window() -> None:
    table = lookup_table([4095 - entry for entry in range(4096)], first=0, bits=12)
    encoded = dicom_file(VALUES, WindowCenter=9, WindowWidth=9, VOILUTSequence=table, **TWELVE_BITS)
    image = rendered(encoded)
    np.testing.assert_array_equal(image.pixels, np.rint((4095 - VALUES) / 4095 * 255))
    assert image.rendering.window_source is WindowSource.VOI_LUT
    assert image.rendering.window is None


def test_a_voi_table_holds_its_ends() -> None:
    encoded = dicom_file(VALUES, VOILUTSequence=lookup_table([100, 200], first=1000, bits=8), **TWELVE_BITS)
    pixels = rendered(encoded).pixels
    assert set(pixels[VALUES <= 1000]) == {100}
    assert set(pixels[VALUES >= 1001]) == {200}


def test_a_table_may_start_below_zero_though_written_unsigned() -> None:
    signed = np.arange(-128, 128, dtype=np.int16).reshape(16, 16)
    table = lookup_table([entry * 256 for entry in range(256)], first=65536 - 128, bits=16)
    pixels = rendered(dicom_file(signed, VOILUTSequence=table)).pixels
    assert pixels[0, 0] == 0
    assert pixels[-1, -1] == 254
    assert (np.diff(pixels.reshape(-1).astype(int)) >= 0).all()


def test_a_modality_table_comes_before_the_window() -> None:
    table = lookup_table([entry * 2 for entry in range(4096)], first=0, bits=16)
    encoded = dicom_file(VALUES, ModalityLUTSequence=table, WindowCenter=4000, WindowWidth=4000, **TWELVE_BITS)
    np.testing.assert_array_equal(rendered(encoded).pixels, linear(VALUES * 2.0, 4000, 4000))


def test_rescaling_comes_before_the_window() -> None:
    encoded = dicom_file(
        VALUES, RescaleSlope=0.5, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=1000, **TWELVE_BITS
    )
    np.testing.assert_array_equal(rendered(encoded).pixels, linear(VALUES * 0.5 - 1000, 0, 1000))


@pytest.mark.parametrize("slope", [0, "1e308"])
def test_rescaling_that_cannot_be_applied_is_refused(slope: object) -> None:
    with pytest.raises(ImageUndecodable, match="rescale"):
        rendered(dicom_file(VALUES, RescaleSlope=slope, RescaleIntercept=0, **TWELVE_BITS))


@pytest.mark.parametrize("width", [0, -5, 0.5])
def test_an_unusable_window_counts_as_none(width: float) -> None:
    encoded = dicom_file(VALUES, WindowCenter=2000, WindowWidth=width, **TWELVE_BITS)
    image = rendered(encoded)
    assert image.rendering.window_source is WindowSource.PERCENTILES
    assert image.pixels.std() > 50


def test_percentiles_leave_a_hot_pixel_out() -> None:
    values = np.linspace(1000, 2000, 10_000).astype(np.uint16).reshape(100, 100)
    values[0, 0], values[0, 1] = 65535, 0
    image = rendered(dicom_file(values))
    low, high = 1005, 1995
    assert image.rendering.window is not None
    assert image.rendering.window.center == pytest.approx((low + high) / 2, abs=2)
    assert image.rendering.window.width == pytest.approx(high - low, abs=3)
    assert image.pixels[50].min() > 100


def test_a_constant_image_has_no_window() -> None:
    image = rendered(dicom_file(np.full((4, 4), 700, dtype=np.uint16)))
    assert image.pixels.max() == 0
    assert image.rendering.window is None


def test_a_few_bright_pixels_on_black_are_seen() -> None:
    values = np.zeros((100, 100), dtype=np.uint16)
    values[3, 4] = 900  # beyond both percentiles
    assert rendered(dicom_file(values)).pixels[3, 4] == 255


def test_plain_8_bit_grey_is_left_alone() -> None:
    values = np.arange(100, 164, dtype=np.uint8).reshape(8, 8)
    image = rendered(dicom_file(values))
    np.testing.assert_array_equal(image.pixels, values)
    assert image.rendering.window_source is WindowSource.NONE


def test_a_binary_mask_is_black_and_white() -> None:
    image = rendered(stored_file("liver_1frame.dcm"))
    assert set(np.unique(image.pixels)) == {0, 255}
    assert image.rendering.window_source is WindowSource.FULL_RANGE


def test_ct_without_a_window_has_a_fixed_one() -> None:
    image = rendered(stored_file("CT_small.dcm"))
    assert image.rendering.window_source is WindowSource.DEFAULT
    assert image.rendering.window == Window(center=-600, width=1500)


def test_padding_is_black_and_counts_in_no_statistics() -> None:
    film = np.linspace(1000, 3000, 80 * 80).astype(np.uint16).reshape(80, 80)
    plain = rendered(dicom_file(film, **TWELVE_BITS))
    padded = np.zeros((100, 100), dtype=np.uint16)
    padded[10:90, 10:90] = film
    image = rendered(dicom_file(padded, PixelPaddingValue=0, **TWELVE_BITS))
    assert image.rendering.window == plain.rendering.window
    np.testing.assert_array_equal(image.pixels[10:90, 10:90], plain.pixels)
    assert image.pixels[:10].max() == 0


def test_padding_is_black_in_an_inverted_image_too() -> None:
    values = np.array([[0, 1000], [2000, 3000]], dtype=np.uint16)
    encoded = dicom_file(
        values, PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1", WindowCenter=2000, WindowWidth=2000
    )
    pixels = rendered(encoded).pixels
    assert pixels[0, 0] == 0
    assert pixels[0, 1] > pixels[1, 0] > pixels[1, 1]


@pytest.mark.parametrize("ends", [(0, 100), (100, 0)])
def test_a_range_of_padding_is_black(ends: tuple[int, int]) -> None:
    encoded = dicom_file(
        VALUES,
        PixelPaddingValue=ends[0],
        PixelPaddingRangeLimit=ends[1],
        WindowCenter=0,
        WindowWidth=2,
        **TWELVE_BITS,
    )
    pixels = rendered(encoded).pixels
    assert pixels[VALUES <= 100].max() == 0
    assert pixels[VALUES > 100].min() == 255


def test_padding_of_another_sign_than_the_pixels_is_understood() -> None:
    values = np.array([[-2000, 0], [500, 1000]], dtype=np.int16)
    encoded = dicom_file(values, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    written = b"\x28\x00\x20\x01SS"  # (0028,0120) PixelPaddingValue
    assert written in encoded
    pixels = rendered(encoded.replace(written, written[:4] + b"US")).pixels
    assert pixels[0, 0] == 0
    assert pixels[0, 1] > 200


def test_an_image_of_padding_alone_is_black() -> None:
    image = rendered(dicom_file(np.full((4, 4), 77, dtype=np.uint16), PixelPaddingValue=77))
    assert image.pixels.max() == 0


@pytest.mark.parametrize(
    ("photometric", "shape", "is_inverted"),
    [
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
    ],
)
def test_grey_is_inverted_exactly_once(photometric: str, shape: str | None, is_inverted: bool) -> None:
    extra: dict[str, Any] = {} if shape is None else {"PresentationLUTShape": shape}
    encoded = dicom_file(
        VALUES, PhotometricInterpretation=photometric, WindowCenter=1500, WindowWidth=1000, **TWELVE_BITS, **extra
    )
    upright = linear(VALUES, 1500, 1000)
    image = rendered(encoded)
    assert image.rendering.inverted is is_inverted
    np.testing.assert_array_equal(image.pixels, 255 - upright if is_inverted else upright)


def test_garbage_above_the_stored_bits_is_masked() -> None:
    dirty = VALUES | np.uint16(0xF000)
    clean = rendered(dicom_file(VALUES, WindowCenter=2000, WindowWidth=3000, **TWELVE_BITS))
    image = rendered(dicom_file(dirty, WindowCenter=2000, WindowWidth=3000, **TWELVE_BITS))
    np.testing.assert_array_equal(image.pixels, clean.pixels)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_signed_values_keep_their_sign(bits: int) -> None:
    top = 2 ** (bits - 1)
    values = np.array([[-top, -1], [0, top - 1]], dtype=np.int16)
    encoded = dicom_file(values, BitsStored=bits, HighBit=bits - 1, WindowCenter=0, WindowWidth=2 * top)
    np.testing.assert_array_equal(rendered(encoded).pixels, linear(values, 0, 2 * top))


def test_a_frame_of_an_enhanced_object_has_its_own_window() -> None:
    frames = np.stack([VALUES, VALUES])
    groups = []
    for center in (1000, 3000):
        window, group = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, 500
        group.FrameVOILUTSequence = Sequence([window])
        groups.append(group)
    encoded = dicom_file(frames, PerFrameFunctionalGroupsSequence=Sequence(groups), **TWELVE_BITS)
    for number, center in enumerate((1000, 3000), start=1):
        image = render(encoded, limits=LIMITS, frame=number)
        assert image.rendering.window == Window(center=center, width=500)


def test_an_unknown_voi_function_is_refused() -> None:
    encoded = dicom_file(VALUES, WindowCenter=1, WindowWidth=2, VOILUTFunction="CUBIC")
    with pytest.raises(ImageUndecodable, match="VOILUTFunction"):
        rendered(encoded)


def test_a_table_that_ends_early_is_refused() -> None:
    table = lookup_table([1, 2, 3], first=0, bits=16)
    table[0].LUTDescriptor = [300, 0, 16]
    with pytest.raises(ImageUndecodable, match="ends early"):
        rendered(dicom_file(VALUES, VOILUTSequence=table))
