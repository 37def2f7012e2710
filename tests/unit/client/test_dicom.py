"""Checks that of a DICOM object the pixels and their description leave the machine, and nothing else."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from m2ib_client import InvalidRequestError, MissingPackageError, _dicom
from m2ib_client._image import image_message, uploadable

CANARY = "CANARY^PATIENT"
# Shipped inside pydicom itself: native, implicit, big-endian, deflated, JPEG 2000, palette, multi-frame.
FILES = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "JPEG2000.dcm",
    "examples_palette.dcm",
    "SC_rgb_small_odd.dcm",
    "emri_small.dcm",
]


def new_dataset() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = "1.2.3.4.5"
    dataset.StudyInstanceUID = "1.2.3.4"
    dataset.PatientName = CANARY
    dataset.PatientID = CANARY
    dataset.InstitutionName = CANARY
    dataset.StudyDescription = CANARY
    dataset.ImageComments = CANARY
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = 4, 6
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    dataset.PixelData = np.arange(24, dtype="<i2").tobytes()
    dataset.add_new(0x00091001, "LO", CANARY)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def sent(image: Any) -> FileDataset:
    return pydicom.dcmread(io.BytesIO(image_message(image, frame=None, window=None).encoded))


@pytest.mark.parametrize("form", ["dataset", "bytes", "path", "without preamble"])
def test_identifiers_stay_here_in_every_form(tmp_path: Path, form: str) -> None:
    dataset = new_dataset()
    file = tmp_path / "film.dcm"
    file.write_bytes(encoded(dataset))
    bare = encoded(dataset)[132:]
    image = {"dataset": dataset, "bytes": file.read_bytes(), "path": file, "without preamble": bare}[form]
    message = image_message(image, frame=None, window=None)
    assert b"CANARY" not in message.encoded
    assert b"1.2.3.4" not in message.encoded.replace(CTImageStorage.encode(), b"")
    arrived = pydicom.dcmread(io.BytesIO(message.encoded))
    assert np.array_equal(arrived.pixel_array, dataset.pixel_array)
    assert (arrived.RescaleIntercept, arrived.WindowWidth, arrived.Modality) == (-1024, 400, "CT")


def test_every_element_that_arrives_is_on_the_list() -> None:
    arrived = sent(new_dataset())
    assert {element.keyword for element in arrived} <= _dicom.RENDERING_KEYWORDS | {"SOPInstanceUID"}


def test_list_names_no_identifier() -> None:
    for keyword in _dicom.RENDERING_KEYWORDS:
        tag = pydicom.datadict.tag_for_keyword(keyword)
        assert tag is not None, keyword
        assert pydicom.datadict.dictionary_VR(tag) not in {"PN", "DA", "TM", "DT", "LT", "ST", "UT", "AS"}
        assert tag >> 16 != 0x0010


def test_identifiers_within_sequences_stay_here_too() -> None:
    dataset = new_dataset()
    table = Dataset()
    table.LUTDescriptor = [2, 0, 8]
    table.LUTData = b"\x00\x01\x02\x03"
    table.LUTExplanation = CANARY
    table["LUTData"].VR = "OW"
    dataset.VOILUTSequence = Sequence([table])
    for image in (dataset, encoded(dataset)):
        arrived = sent(image)
        assert b"CANARY" not in image_message(image, frame=None, window=None).encoded
        assert arrived.VOILUTSequence[0].LUTDescriptor == [2, 0, 8]
        assert "LUTExplanation" not in arrived.VOILUTSequence[0]


def test_callers_dataset_is_left_as_it_was() -> None:
    dataset, before = new_dataset(), new_dataset()
    image_message(dataset, frame=None, window=None)
    assert dataset == before
    assert dataset.file_meta == before.file_meta


def test_same_pixels_are_sent_as_the_same_bytes() -> None:
    one, other = new_dataset(), new_dataset()
    other.PatientName = "SOMEONE^ELSE"
    other.SOPInstanceUID = "9.8.7"
    sent_one = image_message(one, frame=None, window=None).encoded
    assert sent_one == image_message(other, frame=None, window=None).encoded
    assert sent_one == image_message(encoded(other), frame=None, window=None).encoded


def test_stripping_twice_is_stripping_once() -> None:
    once = image_message(new_dataset(), frame=None, window=None).encoded
    assert image_message(once, frame=None, window=None).encoded == once


@pytest.mark.parametrize("name", FILES)
def test_real_files_keep_their_pixels(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    original = pydicom.dcmread(path)
    for image in (path, original):
        arrived = sent(image)
        assert arrived.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert np.array_equal(arrived.pixel_array, original.pixel_array)


def test_dataset_read_without_a_header_keeps_the_syntax_it_was_read_in() -> None:
    dataset = new_dataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    body = buffer.getvalue()
    start = body.index(b"\x08\x00\x16\x00")
    arrived = sent(body[start:])
    assert arrived.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert np.array_equal(arrived.pixel_array, dataset.pixel_array)


FIRST_TAGS = [0x00080005, 0x00080050, 0x00100010, 0x00100020, 0x00180015, 0x0020000D]


@pytest.mark.parametrize("first", FIRST_TAGS, ids=hex)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=str)
@pytest.mark.parametrize("give", [sent, lambda image: pydicom.dcmread(io.BytesIO(uploadable(image).encoded))])
def test_data_set_that_begins_anywhere_is_stripped(first: int, syntax: Any, give: Any) -> None:
    dataset = new_dataset()
    dataset.SpecificCharacterSet, dataset.AccessionNumber, dataset.BodyPartExamined = "ISO_IR 100", CANARY, "CHEST"
    del dataset.file_meta
    for tag in [element.tag for element in dataset if element.tag < first]:
        del dataset[tag]
    if syntax is ExplicitVRBigEndian:
        dataset.PixelData, expected = dataset.PixelData[::-1], np.arange(24)[::-1]
    else:
        expected = np.arange(24)
    buffer = io.BytesIO()
    is_implicit = syntax is ImplicitVRLittleEndian
    pydicom.dcmwrite(buffer, dataset, implicit_vr=is_implicit, little_endian=syntax is not ExplicitVRBigEndian)
    assert CANARY.encode() in buffer.getvalue()
    arrived = give(buffer.getvalue())
    assert "CANARY" not in str(arrived)
    assert arrived.file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(arrived.pixel_array.ravel(), expected)


def test_file_that_is_tiff_and_dicom_at_once_is_stripped() -> None:
    whole = b"II*\x00\x08\x00\x00\x00" + bytes(120) + encoded(new_dataset())[128:]
    message = image_message(whole, frame=None, window=None)
    assert message.encoded.startswith(bytes(128) + b"DICM")
    assert b"CANARY" not in message.encoded


def test_dataset_without_a_transfer_syntax_is_refused() -> None:
    dataset = new_dataset()
    del dataset.file_meta
    with pytest.raises(InvalidRequestError, match="without a transfer syntax"):
        image_message(dataset, frame=None, window=None)


@pytest.mark.parametrize("length", [132, 140, 200, 300, 420])
def test_broken_file_gives_an_answer_without_its_values(length: int) -> None:
    broken = encoded(new_dataset())[:length]
    try:
        message = image_message(broken, frame=None, window=None)
    except InvalidRequestError as error:
        assert "CANARY" not in str(error)
        assert error.__context__ is None or "CANARY" not in str(error.__context__)
    else:
        assert b"CANARY" not in message.encoded


def test_missing_pydicom_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(new_dataset())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingPackageError, match="pip install"):
        image_message(whole, frame=None, window=None)
