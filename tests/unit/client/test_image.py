"""Checks that every form of an image arrives with its pixels unchanged, and nothing but them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m2ib_client import InvalidRequestError
from m2ib_client._format import is_raster
from m2ib_client._image import ALLOWED_FILES, PNG_MODES, TIFF_MODES, image_message, uploadable


def sent(image: Any) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(image_message(image, frame=None, window=None).encoded))


def png(picture: PIL.Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", **options)
    return buffer.getvalue()


PNG = png(PIL.Image.new("L", (1, 1)))
sides = st.integers(1, 9)
greys = st.tuples(sides, sides).flatmap(lambda shape: hnp.arrays(st.sampled_from([np.uint8, np.uint16]), shape))
colours = st.tuples(sides, sides, st.sampled_from([3, 4])).flatmap(lambda shape: hnp.arrays(np.uint8, shape))
model_inputs = hnp.arrays(np.float32, st.tuples(st.just(3), sides, sides), elements=st.floats(width=32))


@given(greys | colours)
def test_array_arrives_without_loss(array: Any) -> None:
    assert np.array_equal(np.asarray(sent(array)), array)


@given(greys)
def test_array_in_any_layout_arrives_without_loss(array: Any) -> None:
    swapped = array.astype(array.dtype.newbyteorder(">"))
    assert np.array_equal(np.asarray(sent(swapped)), array)
    assert np.array_equal(np.asarray(sent(array[::-1, ::-1])), array[::-1, ::-1])


@given(model_inputs)
def test_float_array_is_model_input(array: Any) -> None:
    tensor = image_message(array, frame=None, window=None).tensor
    assert tuple(tensor.shape) == array.shape
    assert tensor.data == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float64),
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.int16),
        np.zeros((4, 4), bool),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((3, 0, 0), np.float32),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_array_of_another_kind_is_refused_by_kind_and_shape(array: Any) -> None:
    with pytest.raises(InvalidRequestError, match=str(array.dtype)) as caught:
        image_message(array, frame=None, window=None)
    assert str(list(array.shape)) in caught.value.seen


@pytest.mark.parametrize("mode", sorted(PNG_MODES | TIFF_MODES))
def test_picture_arrives_in_its_own_mode(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    colour = PIL.Image.fromarray(noise)
    picture = PIL.Image.fromarray(noise[:, :, 0].astype(np.uint16)) if mode == "I;16" else colour.convert(mode)
    arrived = sent(picture)
    assert (arrived.mode, arrived.size) == (mode, (5, 6))
    assert np.array_equal(np.asarray(arrived.convert("RGB")), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["F", "I", "HSV", "YCbCr"])
def test_picture_of_a_mode_that_no_format_keeps_is_refused(mode: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"mode {mode}"):
        image_message(PIL.Image.new(mode, (3, 3)), frame=None, window=None)


def test_transparent_palette_stays_transparent() -> None:
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([9, 8, 7, 1, 2, 3])
    picture.putdata([0, 1])
    picture.info["transparency"] = 1
    assert list(sent(picture).convert("RGBA").get_flattened_data()) == [(9, 8, 7, 255), (1, 2, 3, 0)]


def test_nothing_but_pixels_of_a_picture_is_sent() -> None:
    picture = PIL.Image.new("RGB", (3, 2))
    picture.getexif()[0x010E] = "CANARY^NAME"
    picture.info |= {"Comment": "CANARY^NAME", "icc_profile": b"CANARY^NAME", "dpi": (72, 72)}
    encoded = image_message(picture, frame=None, window=None).encoded
    assert b"CANARY" not in encoded
    assert set(PIL.Image.open(io.BytesIO(encoded)).info) == set()


@pytest.mark.parametrize("as_path", [str, Path])
def test_file_is_sent_as_it_is(tmp_path: Path, as_path: Any) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(png(PIL.Image.new("L", (4, 3), 7)))
    message = image_message(as_path(file), frame=None, window=None)
    assert message.encoded == file.read_bytes()


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "BigTIFF", "WEBP"])
def test_every_raster_format_is_sent_as_it_is(name: str) -> None:
    buffer, is_big = io.BytesIO(), name == "BigTIFF"
    PIL.Image.new("L", (4, 3), 7).save(
        buffer, format="TIFF" if is_big else name, **({"big_tiff": True} if is_big else {})
    )
    assert image_message(buffer.getvalue(), frame=None, window=None).encoded == buffer.getvalue()


NAMED = b"CANARY^PATIENT"
UNKNOWN = {
    "text": NAMED,
    "one byte": b"x",
    "a header without its prefix": bytes(128) + NAMED,
    "NIfTI": (348).to_bytes(4, "little") + bytes(200) + NAMED,
    "gzip": b"\x1f\x8b\x08" + NAMED,
    "GIF": b"GIF89a" + NAMED,
    "big-endian BigTIFF": b"MM\x00+\x00\x08\x00\x00" + NAMED,
    "no WebP": b"RIFF\x10\x00\x00\x00WAVE" + NAMED,
}


@pytest.mark.parametrize("case", UNKNOWN)
@pytest.mark.parametrize("give", [lambda image: image_message(image, frame=None, window=None), uploadable])
def test_bytes_of_no_known_format_never_leave(case: str, give: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        give(UNKNOWN[case])
    assert (caught.value.field, caught.value.reason) == ("image", "IMAGE_UNDECODABLE")
    assert (caught.value.seen, caught.value.allowed) == ("bytes of no known format", ALLOWED_FILES)
    assert "CANARY" not in str(caught.value)


@given(st.binary(min_size=1, max_size=600))
def test_of_arbitrary_bytes_nothing_leaves(encoded: bytes) -> None:
    try:
        sent_bytes = image_message(encoded, frame=None, window=None).encoded
    except InvalidRequestError:
        return
    assert is_raster(encoded) or sent_bytes.startswith(bytes(128) + b"DICM")


def test_no_bytes_are_the_servers_to_refuse() -> None:
    assert image_message(b"", frame=None, window=None).encoded == b""


def test_absent_file_is_the_callers_own_error() -> None:
    with pytest.raises(FileNotFoundError):
        image_message("no-such-file.png", frame=None, window=None)


@pytest.mark.parametrize("image", [None, 3, ["a", "b"], object(), bytearray(b"x")])
def test_other_kinds_are_refused_by_name(image: Any) -> None:
    with pytest.raises(InvalidRequestError, match=type(image).__name__):
        image_message(image, frame=None, window=None)


@pytest.mark.parametrize("frame", [-1, 2**32, 1.5, "1"])
def test_frame_that_cannot_be_sent_is_refused(frame: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"image\.frame"):
        image_message(PNG, frame=frame, window=None)


@pytest.mark.parametrize("window", [(1,), (1, 2, 3), ("a", "b"), 40, "40"])
def test_window_that_is_no_pair_of_numbers_is_refused(window: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"image\.window"):
        image_message(PNG, frame=None, window=window)
