"""The process that decodes a frame has bounds of time and memory, wide enough for the largest frame that is let in."""

import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.uid import JPEGLSLossless

from fakes.dicom_files import dicom_file
from m2ib_server.errors import ImageUndecodable
from m2ib_server.imaging import isolation
from m2ib_server.imaging.header import read_layout
from m2ib_server.settings import DEFAULT_REQUESTS

HANG = [sys.executable, "-c", "import time; time.sleep(60)"]
GREEDY = [sys.executable, "-c", "import sys; sys.stdout.buffer.write(bytes(1 << 20))"]


def frame_of_noise(side: int) -> tuple[bytes, isolation.Child]:
    """A JPEG-LS frame of 16-bit noise, which takes the most memory for its samples, and what decodes it."""
    noise = np.random.default_rng(0).integers(0, 65536, (side, side)).astype(np.uint16)
    ds = dcmread(BytesIO(dicom_file(noise)))
    ds.compress(JPEGLSLossless)
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    return frame, isolation.child_of(read_layout(ds), JPEGLSLossless, container_bits=16, frame_bytes=len(frame))


def test_a_decoder_that_hangs_is_ended_in_time() -> None:
    with pytest.raises(ImageUndecodable, match="takes too long"):
        isolation.run(isolation.Child(command=HANG, output_bytes=4, timeout_seconds=0.2), b"")


def test_the_bounds_are_enough_for_a_frame_of_noise() -> None:
    frame, child = frame_of_noise(1500)
    assert len(isolation.run(child, frame)) == 2 * 1500 * 1500


def test_a_decoder_that_wants_more_memory_than_its_bound_is_refused() -> None:
    frame, child = frame_of_noise(1500)
    bound = child.command.index(str(isolation.memory_bytes(output_bytes=2 * 1500 * 1500, frame_bytes=len(frame))))
    command = [*child.command[:bound], str(64 << 20), *child.command[bound + 1 :]]
    done = subprocess.run(command, input=frame, capture_output=True, check=False)
    assert done.returncode != 0
    assert done.stdout == b""
    refused = isolation.Child(command=command, output_bytes=child.output_bytes, timeout_seconds=child.timeout_seconds)
    with pytest.raises(ImageUndecodable, match="broken or truncated"):
        isolation.run(refused, frame)


def test_more_output_than_the_frame_has_is_refused() -> None:
    with pytest.raises(ImageUndecodable, match="broken or truncated"):
        isolation.run(isolation.Child(command=GREEDY, output_bytes=4, timeout_seconds=10), b"")


def test_the_largest_frame_is_waited_for_longest_and_no_frame_for_long() -> None:
    assert isolation.timeout_seconds(1) < 6
    assert isolation.timeout_seconds(DEFAULT_REQUESTS.max_image_pixels) < 10
