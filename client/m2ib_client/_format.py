"""Tells by its first bytes what a file is: DICOM, a raster format that the server reads, or unknown. Parses nothing.

DICOM is looked for first, by its prefix: a file that is TIFF and DICOM at once (PS3.10 7.1) holds identifiers.
"""

PREAMBLE_BYTES = 128
PREFIX = b"DICM"
RASTER_MAGICS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",  # BigTIFF; the server reads no big-endian one
)
WEBP_PARTS = (b"RIFF", b"WEBP")  # at 0 and at 8
ELEMENT_HEADER_BYTES = 8
UNDEFINED_LENGTH = 0xFFFF_FFFF
# PS3.5 6.2
VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)


def is_dicom(encoded: bytes) -> bool:
    """Tell whether the bytes are a DICOM file, or look like one without its preamble or a data set alone."""
    if encoded[PREAMBLE_BYTES : PREAMBLE_BYTES + len(PREFIX)] == PREFIX:
        return True
    return not is_raster(encoded) and _begins_with_element(encoded)


def is_raster(encoded: bytes) -> bool:
    """Tell whether the bytes begin as PNG, JPEG, TIFF or WebP do."""
    return encoded.startswith(RASTER_MAGICS) or (encoded[:4], encoded[8:12]) == WEBP_PARTS


def _begins_with_element(encoded: bytes) -> bool:
    """Tell whether a data element of a group that data sets begin with comes first, in any of the encodings.

    Of those groups, 0002 to 00FE, each has one byte that is zero: the first one in big endian, the second one in
    little endian.
    """
    if len(encoded) < ELEMENT_HEADER_BYTES or sorted(encoded[:2])[0] != 0 or not 0 < max(encoded[:2]) < 0xFF:
        return False
    if encoded[4:6] in VALUE_REPRESENTATIONS:
        return True
    length = int.from_bytes(encoded[4:8], "little")  # implicit, so little endian
    return encoded[1] == 0 and (length <= len(encoded) - ELEMENT_HEADER_BYTES or length == UNDEFINED_LENGTH)
