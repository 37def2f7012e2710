"""Nothing that the decoding libraries say about a patient's image leaves the room."""

import logging
import struct
import threading
import traceback
import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakes.dicom_files import CANARY, dicom_file, stored_file, with_codestream
from fakes.image_files import SEEDS
from m2ib_server.errors import ImageTooLarge, ImageUndecodable, InvalidField, TextEmpty
from m2ib_server.imaging import ImageLimits, render
from m2ib_server.imaging.quiet import library_call

LIMITS = ImageLimits(max_bytes=1 << 24, max_pixels=1 << 22)
FILM = np.arange(256, dtype=np.uint16).reshape(16, 16)


def noisy_object() -> bytes:
    """An object of which pydicom complains, quoting an element."""
    return dicom_file(FILM, NumberOfFrames=0, PatientBirthDate="19301231").replace(b"19301231", b"Canary^X")


@pytest.fixture
def every_record(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("pydicom", "PIL"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


@pytest.mark.parametrize("name", ["badVR.dcm", "MR_truncated.dcm", "CT_small.dcm", "JPEG2000.dcm"])
def test_nothing_is_logged_and_nothing_is_warned(name: str, every_record: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            render(stored_file(name), limits=LIMITS)
        except InvalidField as refusal:
            assert refusal.seen
    assert not warned
    assert not every_record.records


def test_tiff_tags_are_not_logged(every_record: pytest.LogCaptureFixture) -> None:
    stream = BytesIO()
    Image.new("L", (4, 4)).save(stream, format="TIFF", description=CANARY)
    every_record.clear()
    render(stream.getvalue(), limits=LIMITS)
    assert not every_record.records


def replaced(encoded: bytes, old: bytes) -> bytes:
    """Put the patient where another value stood."""
    assert old in encoded
    return encoded.replace(old, (CANARY.encode() * 2)[: len(old)])


VOI: dict[str, Any] = {"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "LINEAR_EXACT"}


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(dicom_file(FILM)[:-9], id="truncated"),
        pytest.param(replaced(dicom_file(FILM), b"MONOCHROME2"), id="photometric"),
        pytest.param(replaced(dicom_file(FILM, **VOI), b"LINEAR_EXACT"), id="voi"),
        pytest.param(replaced(dicom_file(FILM), b"1.2.840.10008.1.2.1"), id="syntax"),
        pytest.param(replaced(dicom_file(FILM, RescaleSlope="1.000000", RescaleIntercept=0), b"1.000000"), id="slope"),
        pytest.param(CANARY.encode() * 9, id="text"),
    ],
)
def test_no_refusal_quotes_the_image(broken: bytes) -> None:
    with pytest.raises(InvalidField) as caught:
        render(broken, limits=LIMITS)
    told = "".join(traceback.format_exception(caught.value))
    assert "Canary" not in told
    assert "Patient" not in told


def test_a_noisy_object_renders_even_where_warnings_are_errors() -> None:
    image = render(noisy_object(), limits=LIMITS)
    assert image.pixels.shape == (16, 16)


def test_what_was_switched_off_is_switched_on_again() -> None:
    before = list(warnings.filters), logging.getLogger("pydicom").propagate
    with pytest.raises(ImageUndecodable), library_call("a broken file"):
        assert not logging.getLogger("pydicom").propagate
        raise KeyError("any")
    assert (list(warnings.filters), logging.getLogger("pydicom").propagate) == before


def test_the_last_of_two_threads_switches_on_again() -> None:
    first_is_in, second_is_done = threading.Event(), threading.Event()

    def first() -> None:
        with library_call("x"):
            first_is_in.set()
            second_is_done.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    first_is_in.wait(10)
    with library_call("y"):
        pass
    assert not logging.getLogger("pydicom").propagate
    second_is_done.set()
    thread.join()
    assert logging.getLogger("pydicom").propagate


def test_faults_of_our_own_pass_unchanged() -> None:
    with pytest.raises(TextEmpty), library_call("x"):
        raise TextEmpty("text", seen="a", allowed="b")


@pytest.mark.parametrize("bomb", [Image.DecompressionBombError, Image.DecompressionBombWarning])
def test_pillows_own_limit_is_ours(bomb: type[Exception]) -> None:
    with pytest.raises(ImageTooLarge), library_call("x"):
        raise bomb("17 pixels")


def test_an_interrupt_is_no_fault_of_the_image() -> None:
    with pytest.raises(KeyboardInterrupt), library_call("x"):
        raise KeyboardInterrupt


def test_run_lengths_that_overrun_the_frame_write_nothing_onto_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    segment = b"\x81\x00" * 200  # each 128 zeros, together more than a frame has
    frame = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13) + segment * 2
    image = render(with_codestream(stored_file("MR_small_RLE.dcm"), frame), limits=LIMITS)
    assert np.ptp(image.pixels) == 0  # of one value, as the runs say; what is beyond the frame is left out
    assert capfd.readouterr() == ("", "")


def test_a_broken_tiff_writes_nothing_onto_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    encoded = bytearray(SEEDS["tiff-lzw"]())
    encoded[10:14] = b"\xff" * 4  # codes that stand for nothing yet
    with pytest.raises(ImageUndecodable):
        render(bytes(encoded), limits=LIMITS)
    assert capfd.readouterr() == ("", "")
