"""Words that no operator may ever read, the films and pictures that hold them, and what a server said of them."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from PIL import Image, PngImagePlugin

from fakes.dicom_files import dicom_file

PATIENT, ACCESSION, INSTITUTION = "Zebrafinch^Quincy", "ACC7731905", "Wombleton"
TEXT, PAIR, MODEL, HANDLE = "Oxbowlake", "pair-Tamarind", "model-Quokka", "handle-Narwhal"
HEADER, TOKEN, AGENT, METHOD, FILE = "Marmalade", "Pangolin", "Kittiwake", "Bandicoot", "Capercaillie"
IDENTIFIERS = (*PATIENT.split("^"), ACCESSION, INSTITUTION, FILE)
CANARIES = (*IDENTIFIERS, TEXT, "Tamarind", "Quokka", "Narwhal", HEADER, TOKEN, AGENT, METHOD)

METADATA = (
    ("x-patient", f"{PATIENT} {HEADER}"),
    (f"x-{HEADER}".lower(), HEADER),
    ("x-study-bin", f"{ACCESSION} {HEADER}".encode()),
    ("authorization", f"Bearer {TOKEN}"),
    ("traceparent", f"00-{HEADER}-{PATIENT}-01"),
    ("tracestate", f"{HEADER.lower()}={HEADER}"),
    ("baggage", f"patient={HEADER}"),
)
CHANNEL_OPTIONS = (("grpc.primary_user_agent", AGENT),)

PIXELS = np.random.default_rng(0).integers(0, 4096, (40, 48)).astype(np.uint16)
TAGS = {
    "PatientName": PATIENT,
    "PatientID": PATIENT,
    "AccessionNumber": ACCESSION,
    "InstitutionName": INSTITUTION,
    "StudyDescription": FILE,
    "ReferencedFileID": FILE.upper(),
}
FILM = dicom_file(PIXELS, BitsStored=12, HighBit=11, **TAGS)
NO_PIXELS = dicom_file(PIXELS, **TAGS, PixelData=None)
ODD_PIXELS = dicom_file(PIXELS, **TAGS, PhotometricInterpretation=METHOD.upper())
BROKEN = FILM[: len(FILM) // 2]


def _written(file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((PIXELS >> 4).astype(np.uint8)).save(buffer, file_format, **options)
    return buffer.getvalue()


def _png() -> bytes:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Title", f"{PATIENT} {FILE}")
    chunks.add_itxt(FILE, PATIENT)
    return _written("PNG", pnginfo=chunks)


def _jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x010E], exif[0x010D] = PATIENT, f"{FILE}.jpg"  # ImageDescription, DocumentName
    return _written("JPEG", exif=exif, comment=PATIENT)


PICTURES = {
    "png": _png(),
    "jpeg": _jpeg(),
    "tiff": _written("TIFF", description=PATIENT, software=FILE),
}


@dataclass
class Said:
    """What came back: answers, what was said of failures, and the handles that a caller alone may know."""

    answers: list[bytes] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    handles: list[str] = field(default_factory=list)

    def take(self, call: Any) -> list[Any]:
        """Make a call, unary or streaming, and keep what comes of it."""
        try:
            outcome = call()
            messages = list(outcome) if isinstance(outcome, Iterator) else [outcome]
        except grpc.RpcError as error:
            self.refusals.append(f"{error.code()} {error.details()} {error.trailing_metadata()}")
            return []
        self.answers += [message.SerializeToString() for message in messages]
        return messages


class Telling(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Puts the canaries into the metadata of every call of a channel."""

    def _tell(self, continuation: Any, details: Any, request: Any) -> Any:
        told = details._replace(metadata=[*(details.metadata or ()), *METADATA])
        return continuation(told, request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _tell


def birds_in(text: str) -> list[str]:
    """Return the canaries in what an operator reads, in whichever letters."""
    return [word for word in CANARIES if word.lower() in text.lower()]
