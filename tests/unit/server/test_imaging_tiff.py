"""What a TIFF's directories claim is held against the limits before anything is allocated for it."""

import resource
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from m2ib_server.errors import ImageTooLarge, ImageUndecodable, InvalidField
from m2ib_server.imaging import ImageLimits, render
from m2ib_server.imaging.tiff import MOST_PAGES, MOST_SEGMENTS

LIMITS = ImageLimits(max_bytes=1 << 25, max_pixels=1 << 20)
SIDE = 16
SHORT, LONG, FLOAT = 3, 4, 11
WIDTH, LENGTH, COMPRESSION, ROWS_PER_STRIP, TILE_WIDTH, TILE_LENGTH = 256, 257, 259, 278, 322, 323
DEFLATE = 8
FORMAT = {SHORT: "HH", LONG: "I", FLOAT: "f"}


def field(tag, kind, value):
    values = (value, 0) if kind == SHORT else (value,)
    return struct.pack("<HHI", tag, kind, 1) + struct.pack("<" + FORMAT[kind], *values)


def directory(fields, following=0):
    return struct.pack("<H", len(fields)) + b"".join(fields) + struct.pack("<I", following)


def tiff(segment, *geometry, offsets_tag):
    """A file of one page, 16 x 16, 8-bit grey, deflated, whose one strip or tile is `segment`."""
    plain = [
        field(WIDTH, LONG, SIDE),
        field(LENGTH, LONG, SIDE),
        field(258, SHORT, 8),
        field(COMPRESSION, SHORT, DEFLATE),
    ]
    plain += [field(262, SHORT, 1), field(277, SHORT, 1)]
    at = 8 + len(directory([*plain, *geometry, b"\0" * 12, b"\0" * 12]))
    data = zlib.compress(segment, 9)
    segments = [field(offsets_tag, LONG, at), field(offsets_tag + (6 if offsets_tag == 273 else 1), LONG, len(data))]
    return b"II*\0" + struct.pack("<I", 8) + directory([*plain, *geometry, *segments]) + data


def tiled(width, length, *more, content=None):
    geometry = (field(TILE_WIDTH, LONG, width), field(TILE_LENGTH, LONG, length), *more)
    return tiff(bytes(width * length) if content is None else content, *geometry, offsets_tag=324)


def test_a_tile_that_is_larger_than_its_image_is_read():
    image = render(tiled(256, 256, content=bytes([7]) * 65536), limits=LIMITS)
    assert image.pixels.shape == (SIDE, SIDE)
    assert (image.pixels == 7).all()


def test_one_strip_that_claims_all_rows_there_could_be_is_read():
    strip = tiff(bytes([9]) * SIDE * SIDE, field(ROWS_PER_STRIP, LONG, 2**32 - 1), offsets_tag=273)
    assert (render(strip, limits=LIMITS).pixels == 9).all()


@pytest.mark.parametrize(("width", "length"), [(1040, 1024), (2**31 - 16, 16), (2**32 - 16, 2**32 - 16)])
def test_a_tile_of_more_pixels_than_an_image_may_have_is_refused(width, length):
    with pytest.raises(ImageTooLarge, match=f"tiles of {width} x {length} pixels"):
        render(tiled(width, length, content=b""), limits=LIMITS)


def test_a_small_tile_that_inflates_to_much_costs_no_memory():
    encoded = tiled(8192, 8192)  # 64 MiB of zeros
    assert len(encoded) < 1 << 19
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageTooLarge):
        render(encoded, limits=LIMITS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 15  # KiB


def test_a_strip_costs_no_more_than_its_image_whatever_it_claims():
    strip = tiff(bytes(1 << 26), field(ROWS_PER_STRIP, LONG, 1 << 24), offsets_tag=273)
    code = (
        "import re, sys; from pathlib import Path; from m2ib_server.imaging import ImageLimits, render;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+([0-9]+)', Path('/proc/self/status').read_text())[1]);"
        "encoded = sys.stdin.buffer.read(); before = peak();"
        "render(encoded, limits=ImageLimits(max_bytes=1 << 25, max_pixels=1 << 20));"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=strip, capture_output=True, check=True)
    assert int(done.stdout) < 1 << 15  # KiB


@pytest.mark.parametrize("twice", [field(TILE_WIDTH, LONG, SIDE), field(WIDTH, LONG, SIDE)])
def test_a_field_twice_is_refused_for_readers_differ_in_which_they_take(twice):
    with pytest.raises(ImageUndecodable, match="a field twice"):
        render(tiled(SIDE, SIDE, twice), limits=LIMITS)


def test_a_tile_whose_size_is_no_whole_number_is_refused():
    geometry = (field(TILE_WIDTH, FLOAT, 1e9), field(TILE_LENGTH, LONG, SIDE))
    with pytest.raises(ImageUndecodable, match="no whole number"):
        render(tiff(b"", *geometry, offsets_tag=324), limits=LIMITS)


def test_a_bigtiff_is_read_in_the_one_byte_order_that_its_readers_agree_on(tmp_path):
    Image.fromarray(np.full((SIDE, SIDE), 5, dtype=np.uint8)).save(tmp_path / "big.tif", big_tiff=True)
    encoded = (tmp_path / "big.tif").read_bytes()
    assert encoded.startswith(b"II+\0")
    assert (render(encoded, limits=LIMITS).pixels == 5).all()
    with pytest.raises(ImageUndecodable, match="big-endian BigTIFF"):
        render(b"MM\0+" + encoded[4:], limits=LIMITS)


def test_a_page_of_too_many_strips_is_refused_at_once():
    count = MOST_SEGMENTS + 1
    offsets = struct.pack("<HHII", 273, LONG, count, 200)
    plain = [field(WIDTH, LONG, SIDE), field(LENGTH, LONG, SIDE), field(258, SHORT, 8), field(262, SHORT, 1), offsets]
    encoded = (b"II*\0" + struct.pack("<I", 8) + directory(plain)).ljust(200, b"\0") + bytes(4 * count)
    with pytest.raises(ImageUndecodable, match=f"{count} strips"):
        render(encoded, limits=LIMITS)


def empty_pages(count):
    """A chain of `count` directories of one field each."""
    size = len(directory([b"\0" * 12]))
    pages = [
        directory([field(WIDTH, LONG, SIDE)], 8 + (number + 1) * size if number + 1 < count else 0)
        for number in range(count)
    ]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(pages)


def test_a_page_beyond_those_that_are_read_is_refused_in_good_time():
    started = time.monotonic()
    with pytest.raises(InvalidField, match=f"allowed: 1 to {MOST_PAGES}"):
        render(empty_pages(200_000), limits=LIMITS, frame=200_000)
    assert time.monotonic() - started < 2


def test_pages_that_follow_one_another_in_a_circle_end():
    page = directory([field(WIDTH, LONG, SIDE)], 8)
    with pytest.raises(ImageUndecodable):
        render(b"II*\0" + struct.pack("<I", 8) + page, limits=LIMITS, frame=3)


def test_a_tile_of_a_later_page_is_held_against_the_limits_too(tmp_path):
    first = Image.fromarray(np.zeros((SIDE, SIDE), dtype=np.uint8))
    path = tmp_path / "pages.tif"
    first.save(path, save_all=True, append_images=[first], compression="tiff_deflate")
    encoded = bytearray(path.read_bytes())
    assert render(bytes(encoded), limits=LIMITS, frame=2).pixels.shape == (SIDE, SIDE)
    second = struct.unpack_from("<I", encoded, 4)[0]
    count = struct.unpack_from("<H", encoded, second)[0]
    second = struct.unpack_from("<I", encoded, second + 2 + 12 * count)[0]
    for number, (tag, value) in enumerate([(TILE_WIDTH, 1 << 16), (TILE_LENGTH, 1 << 16)]):
        at = second + 2 + 12 * (struct.unpack_from("<H", encoded, second)[0] - 1 - number)
        encoded[at : at + 12] = field(tag, LONG, value)
    render(bytes(encoded), limits=LIMITS, frame=1)
    with pytest.raises(ImageTooLarge, match="tiles of 65536 x 65536"):
        render(bytes(encoded), limits=LIMITS, frame=2)
