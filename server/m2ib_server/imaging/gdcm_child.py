"""Decodes one compressed frame with GDCM: standard input to standard output, then ends. A program, not a module.

GDCM ends its process on some malformed frames, so it has a process of its own; see `isolation.py`, which starts it.
Arguments: the most address space in bytes, columns, rows, samples, bits allocated, bits stored, pixel representation,
photometric interpretation, transfer syntax UID. Output: the samples as GDCM lays them out, colour by pixel, native byte
order.
"""

import resource
import sys

import gdcm


def decode(frame: bytes, arguments: list[str]) -> bytes:
    """Return the frame's samples."""
    columns, rows, samples, allocated, stored, representation = map(int, arguments[:6])
    photometric, syntax = arguments[6:]
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(_pixel_data(frame))
    kind = gdcm.PhotometricInterpretation.GetPIType(photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetPlanarConfiguration(0)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(samples, allocated, stored, stored - 1, representation))
    # The binding declares bytes as text.
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))


def _pixel_data(frame: bytes) -> gdcm.DataElement:
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    return element


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the patient's pixels
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))  # a frame may ask for any amount
    sys.stdout.buffer.write(decode(sys.stdin.buffer.read(), sys.argv[2:]))
