"""Decodes JPEG Lossless, JPEG-LS and 12-bit JPEG in a process of its own, which their decoders can end or hold up."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import UID

from .greyscale import Stored
from .header import PixelLayout
from .refusal import undecodable

_PROGRAM = Path(__file__).with_name("gdcm_child.py")
# Measured on frames of 40 megapixels: JPEG Lossless of 12 bits takes 2 s alone and 4 s beside others.
_START_SECONDS = 5.0
_SECONDS_PER_SAMPLE = 1e-7
# Measured at the peak of address space: 46 MB before a frame, then 7.8 bytes for each byte of the output, which the
# binding hands over as text. Text of another make-up may take two more.
_START_BYTES = 128 << 20
_BYTES_PER_OUTPUT_BYTE = 12
_BYTES_PER_FRAME_BYTE = 4
_END_OF_IMAGE = b"\xff\xd9"
_PADDING = b"\0\xff"  # to even length; some writers pad with what starts a marker
_BROKEN = "a compressed frame that is broken or truncated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process that decodes one frame.

    Attributes:
        command: what runs it; the frame goes to its standard input.
        output_bytes: how many bytes it is to write.
        timeout_seconds: how long it may take.
    """

    command: Sequence[str]
    output_bytes: int
    timeout_seconds: float


def decode_isolated(frame: bytes, layout: PixelLayout, syntax: UID, *, precision: int) -> Stored:
    """Decode one frame to [rows, columns] or [rows, columns, samples], colour as stored.

    precision: the bits of a sample as the frame declares them.

    Raises:
        ImageUndecodable: the frame has no end, or the decoder failed, ended early or took too long.
    """
    if not frame.rstrip(_PADDING).endswith(_END_OF_IMAGE):
        raise undecodable(_BROKEN)
    container_bits = 8 if precision <= 8 else 16
    child = child_of(layout, syntax, container_bits=container_bits, frame_bytes=len(frame))
    samples = run(child, frame)
    sample_type = np.dtype(f"{'i' if layout.is_signed else 'u'}{container_bits // 8}")
    shape = (layout.rows, layout.columns, *([layout.samples] if layout.samples > 1 else []))
    spare_bits = max(0, container_bits - layout.bits_stored)
    stored = np.frombuffer(samples, dtype=sample_type).reshape(shape)
    extended: Stored = (stored << spare_bits) >> spare_bits  # extends the sign, where there is one
    return extended


def timeout_seconds(samples: int) -> float:
    """Return how long decoding so many samples may take."""
    return _START_SECONDS + _SECONDS_PER_SAMPLE * samples


def memory_bytes(*, output_bytes: int, frame_bytes: int) -> int:
    """Return how much address space decoding may take."""
    return _START_BYTES + _BYTES_PER_OUTPUT_BYTE * output_bytes + _BYTES_PER_FRAME_BYTE * frame_bytes


def child_of(layout: PixelLayout, syntax: UID, *, container_bits: int, frame_bytes: int) -> Child:
    """Return the process that decodes a frame of this layout."""
    samples = layout.rows * layout.columns * layout.samples
    output_bytes = samples * container_bits // 8
    numbers = (
        memory_bytes(output_bytes=output_bytes, frame_bytes=frame_bytes),
        layout.columns,
        layout.rows,
        layout.samples,
        container_bits,
        layout.bits_stored,
        int(layout.is_signed),
    )
    command = [sys.executable, "-I", str(_PROGRAM), *map(str, numbers), layout.photometric, str(syntax)]
    return Child(command=command, output_bytes=output_bytes, timeout_seconds=timeout_seconds(samples))


def run(child: Child, frame: bytes) -> bytes:
    """Decode a frame.

    Raises:
        ImageUndecodable: the process failed, took too long, or wrote more or less than it should.
    """
    try:
        # The arguments are whole numbers and names from our own tables.
        done = subprocess.run(  # noqa: S603
            child.command,
            input=frame,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=child.timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise undecodable("a compressed frame that takes too long to decode") from None
    if done.returncode != 0 or len(done.stdout) != child.output_bytes:
        raise undecodable(_BROKEN)
    return done.stdout
