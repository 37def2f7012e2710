"""The fifteen hard DICOM inputs, as far as a server that explains images goes; what a gateway makes of them is its."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import RLELossless

from corpus.row import Refused, Row, Shown
from fakes.dicom_files import dicom_file, lookup_table, stored_file

RAMP = np.linspace(0, 4095, 40 * 48).reshape(40, 48).astype(np.uint16)
TWELVE = {"BitsStored": 12, "HighBit": 11}
TWO_WINDOWS = {
    "WindowCenter": [1000, 3000],
    "WindowWidth": [500, 200],
    "WindowCenterWidthExplanation": ["LUNG", "BONE"],
}
UNDECODABLE = "IMAGE_UNDECODABLE"
WINDOWED, STRETCHED = Shown(source="window"), Shown(source="percentiles")


def film(pixels: NDArray[Any] = RAMP, **elements: Any) -> bytes:
    """A 12-bit film with the elements given."""
    return dicom_file(pixels, **{**TWELVE, **elements})


def bordered() -> NDArray[np.uint16]:
    """A film between the blades of a collimator, which are as bright as can be."""
    pixels = RAMP.copy()
    pixels[:8], pixels[-8:] = 4095, 4095
    return pixels


def with_garbage() -> NDArray[np.uint16]:
    """The ramp with overlay bits above those that are stored."""
    return RAMP | np.uint16(0xA000)


def huge() -> bytes:
    """10,000 x 10,000 pixels of 16 bits, black, so that run lengths hold them in few bytes."""
    ds = dcmread(BytesIO(dicom_file(np.zeros((100, 10_000), np.uint16))))
    ds.compress(RLELossless)
    ds.Rows = 10_000
    stream = BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def stored(name: str, then: Shown | Refused, frame: int | None = None) -> Row:
    """A row of a file that pydicom or pydicom-data ships."""
    return Row(make=lambda: stored_file(name), then=then, frame=frame)


FILMS = {
    "1 chest film, MONOCHROME1": stored("RG1_UNCR.dcm", Shown(source="window", inverted=True)),
    "2 lossy": stored("RG1_J2KI.dcm", Shown(source="window", inverted=True)),
    "3 inverse once": Row(
        make=lambda: film(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
        then=Shown(source="percentiles", inverted=True),
    ),
    "4 two windows": Row(make=lambda: film(**TWO_WINDOWS), then=WINDOWED),
    "5 no window": Row(make=film, then=STRETCHED),
    "5 ct without a window": stored("CT_small.dcm", Shown(source="default window")),
    "6 window of no width": Row(make=lambda: film(WindowCenter=1000, WindowWidth=0), then=STRETCHED),
    "7 table beside a window": Row(
        make=lambda: film(
            WindowCenter=1000, WindowWidth=500, VOILUTSequence=lookup_table(list(range(4096)), first=0, bits=12)
        ),
        then=Shown(source="voi lut"),
    ),
    "7 voi table": stored("vlut_04.dcm", Shown(source="voi lut")),
    "7 modality table": stored("mlut_18.dcm", STRETCHED),
    "8 sigmoid": Row(make=lambda: film(WindowCenter=2000, WindowWidth=900, VOILUTFunction="SIGMOID"), then=WINDOWED),
    "9 collimator": Row(make=lambda: film(bordered(), PixelPaddingValue=4095), then=STRETCHED),
    "10 burned in": Row(make=lambda: film(BurnedInAnnotation="YES"), then=STRETCHED),
    "11 for processing": Row(make=lambda: film(Modality="DX", PresentationIntentType="FOR PROCESSING"), then=STRETCHED),
    "11 report": stored("test-SR.dcm", Refused(UNDECODABLE, "no image")),
    "11 waveform": stored("waveform_ecg.dcm", Refused(UNDECODABLE, "no image")),
    "11 segmentation": stored("liver_1frame.dcm", Shown(source="full range")),
    "11 dose": stored("rtdose.dcm", Refused(UNDECODABLE, "without a rendering")),
    "12 jpeg lossless": stored("JPGLosslessP14SV1_1s_1f_8b.dcm", WINDOWED),
    "12 jpeg-ls": stored("MR_small_jpeg_ls_lossless.dcm", WINDOWED),
    "12 jpeg of 12 bits": stored("JPGExtended.dcm", STRETCHED),
    "12 rle": stored("MR_small_RLE.dcm", WINDOWED),
    "12 deflated": stored("image_dfl.dcm", Shown(source="none")),
    "12 big endian": stored("MR_small_bigendian.dcm", WINDOWED),
    "13 last of ten frames": stored("emri_small.dcm", STRETCHED, frame=10),
    "13 one frame too many": stored("emri_small.dcm", Refused("INVALID_FIELD", "image.frame: seen 11"), frame=11),
    "13 palette": stored("gdcm-US-ALOKA-16.dcm", Shown(source="full range")),
    "13 last of 120 frames": stored("color3d_jpeg_baseline.dcm", Shown(source="none"), frame=120),
    "13 last of 30 frames": stored("examples_ybr_color.dcm", Shown(source="none"), frame=30),
    "14 truncated": stored("MR_truncated.dcm", Refused(UNDECODABLE)),
    "14 bad type": stored("badVR.dcm", Refused(UNDECODABLE)),
    "14 no file meta": stored("no_meta.dcm", Refused(UNDECODABLE)),
    "14 sign differs": stored("J2K_pixelrep_mismatch.dcm", WINDOWED),
    "14 garbage bits": Row(make=lambda: film(with_garbage()), then=STRETCHED),
    "15 names in utf-8": Row(
        make=lambda: film(SpecificCharacterSet="ISO_IR 192", PatientName="Canary^山田^太郎=やまだ^たろう"),
        then=STRETCHED,
    ),
    "15 huge": Row(make=huge, then=Refused("IMAGE_TOO_LARGE", "10000 x 10000")),
}
