"""A DICOM header is read at a cost that its sender cannot choose, and of many frames only the one asked for."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from fakes.dicom_files import dicom_file
from m2ib_server.errors import ImageUndecodable
from m2ib_server.imaging import ImageLimits, Window, WindowSource, render
from m2ib_server.imaging.elements import MOST_VALUE_BYTES

LIMITS = ImageLimits(max_bytes=1 << 25, max_pixels=1 << 20)
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
MANY = 1 << 19
SECONDS, MEBIBYTES = 8, 150
UNDEFINED = 0xFFFFFFFF
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
END_OF_SEQUENCE = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
PIXELS, WINDOW_CENTER, VOI_LUTS, PER_FRAME = 0x7FE00010, 0x00281050, 0x00283010, 0x52009230


def element(tag, content, *, length=None, vr=b""):
    """An element in implicit VR, or with a VR in explicit VR; `length` where it is not the content's."""
    length = len(content) if length is None else length
    return (
        struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        + (vr + b"\0\0" if vr else b"")
        + struct.pack("<I", length)
        + content
    )


def with_header(syntax, *extra, before=PIXELS):
    """A readable object with more elements put in before a tag, or before its pixels."""
    encoded = dicom_file(RAMP, syntax=syntax, WindowCenter=1000, WindowWidth=3000)
    at = encoded.rindex(struct.pack("<HH", before >> 16, before & 0xFFFF))
    return encoded[:at] + b"".join(extra) + encoded[at:]


def explicit(*extra, **where):
    return with_header(ExplicitVRLittleEndian, *extra, **where)


def implicit(*extra, **where):
    return with_header(ImplicitVRLittleEndian, *extra, **where)


def empty_items(tag, vr=b"SQ", *, is_defined=False):
    content = EMPTY_ITEM * MANY
    if is_defined:
        return element(tag, content, vr=vr)
    return element(tag, content + END_OF_SEQUENCE, length=UNDEFINED, vr=vr)


def nested(depth):
    opened = element(VOI_LUTS, struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED), length=UNDEFINED, vr=b"SQ")
    return opened * depth


def many_fragments():
    fragments = EMPTY_ITEM * MANY + struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd" + END_OF_SEQUENCE
    encoded = dicom_file(RAMP, syntax=ExplicitVRLittleEndian)
    at = encoded.rindex(struct.pack("<HH", 0x7FE0, 0x0010))
    changed = encoded.replace(ExplicitVRLittleEndian.encode() + b"\0", RLELossless.encode() + b"\0")
    at += len(changed) - len(encoded)
    return changed[:at] + element(PIXELS, fragments, length=UNDEFINED, vr=b"OB")


def in_file_meta():
    encoded = explicit()
    at = encoded.index(b"\x02\x00\x10\x00UI")
    return encoded[:at] + empty_items(0x00020005) + encoded[at:]


ATTACKS = {
    "items of undefined length in all": lambda: explicit(empty_items(PER_FRAME)),
    "items of a sequence that is not needed": lambda: explicit(empty_items(0x00081140)),
    "items of defined length in all": lambda: explicit(empty_items(PER_FRAME, is_defined=True)),
    "lookup tables": lambda: explicit(empty_items(VOI_LUTS, is_defined=True)),
    "items in private elements": lambda: explicit(empty_items(0x00291010, b"UN")),
    "items in the file meta information": in_file_meta,
    "items in the group of the pixels": lambda: explicit(empty_items(0x7FE00003)),
    "elements": lambda: implicit(b"".join(element(0x00291010 + number, b"") for number in range(MANY))),
    "numbers": lambda: implicit(element(WINDOW_CENTER, b"1\\" * (MANY * 4))),
    "character sets": lambda: implicit(element(0x00080005, b"\\" * (MANY * 8)), before=0x00080016),
    "nesting": lambda: explicit(nested(100_000)),
    "fragments": many_fragments,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_header_costs_little_however_many_it_holds(attack, tmp_path):
    (tmp_path / "object.dcm").write_bytes(ATTACKS[attack]())
    code = (
        "import re, sys, time\n"
        "from pathlib import Path\n"
        "from m2ib_server.errors import InvalidField\n"
        "from m2ib_server.imaging import ImageLimits, render\n"
        "encoded = open(sys.argv[1], 'rb').read()\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+([0-9]+)', Path('/proc/self/status').read_text())[1])\n"
        "before, began = peak(), time.process_time()\n"
        "try: render(encoded, limits=ImageLimits(max_bytes=1 << 25, max_pixels=1 << 20))\n"
        "except InvalidField: pass\n"
        "print(time.process_time() - began, (peak() - before) / 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "object.dcm")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    seconds, mebibytes = map(float, done.stdout.split())
    assert seconds < SECONDS
    assert mebibytes < MEBIBYTES


def in_frames(*centers, is_undefined):
    """An object whose frames have windows of their own, in functional groups (PS3.3 C.7.6.16)."""
    groups = []
    for center in centers:
        window, group = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, 500
        group.FrameVOILUTSequence = Sequence([window])
        groups.append(group)
    sequence = Sequence(groups)
    encoded = dicom_file(np.stack([RAMP] * len(centers)), PerFrameFunctionalGroupsSequence=sequence)
    if not is_undefined:
        return encoded
    at = encoded.index(struct.pack("<HH2s", PER_FRAME >> 16, PER_FRAME & 0xFFFF, b"SQ")) + 8
    (length,) = struct.unpack_from("<I", encoded, at)
    content = encoded[at + 4 : at + 4 + length]
    return encoded[:at] + struct.pack("<I", UNDEFINED) + content + END_OF_SEQUENCE + encoded[at + 4 + length :]


@pytest.mark.parametrize("is_undefined", [False, True], ids=["defined length", "undefined length"])
def test_a_frame_gets_the_window_of_its_own_groups(is_undefined):
    encoded = in_frames(700, 800, 900, is_undefined=is_undefined)
    for frame, center in ((1, 700), (2, 800), (3, 900)):
        assert render(encoded, limits=LIMITS, frame=frame).rendering.window == Window(center=center, width=500)


def test_groups_for_some_frames_only_leave_the_others_with_what_the_object_says():
    encoded = in_frames(700, 800, is_undefined=False)
    more = encoded.replace(b"IS\x02\x002 ", b"IS\x02\x009 ") + b"\0" * (RAMP.nbytes * 7)
    at = more.rindex(struct.pack("<HH", 0x7FE0, 0x0010)) + 8
    more = more[:at] + struct.pack("<I", RAMP.nbytes * 9) + more[at + 4 :]
    assert render(more, limits=LIMITS, frame=2).rendering.window == Window(center=800, width=500)
    assert render(more, limits=LIMITS, frame=5).rendering.window_source is WindowSource.PERCENTILES


@pytest.mark.parametrize("tag", [0x00280010, 0x00280030, WINDOW_CENTER])
def test_a_number_of_a_length_that_no_number_has_is_refused(tag):
    long = element(tag, b"1" * (MOST_VALUE_BYTES + 2))
    encoded = dicom_file(RAMP, syntax=ImplicitVRLittleEndian)
    at = encoded.rindex(struct.pack("<HH", 0x0028, 0x0100))
    with pytest.raises(ImageUndecodable, match="of a length that it cannot have"):
        render(encoded[:at] + long + encoded[at:], limits=LIMITS)


def test_a_private_element_of_any_length_is_passed_over():
    encoded = implicit(element(0x00291010, bytes(1 << 22)), element(0x60003000, bytes(1 << 20)))
    np.testing.assert_array_equal(render(encoded, limits=LIMITS).pixels, render(implicit(), limits=LIMITS).pixels)
