"""Checks that images which come again among many pairs are noticed, and that a changed file is no old image."""

import os
from pathlib import Path

import pytest

from m2ib.v1 import attribution_pb2
from m2ib_client import ImageHandle
from m2ib_client._many.images import RepeatedImages


def message(encoded: bytes) -> attribution_pb2.Image:
    return attribution_pb2.Image(encoded=encoded)


def test_image_has_a_handle_from_the_second_time_on() -> None:
    images = RepeatedImages()
    assert images.notice(b"a", message(b"a")) is None
    assert images.notice(b"b", message(b"b")) is None
    handle = images.notice(b"a", message(b"a"))
    assert handle is not None
    assert handle.encoded == b"a"
    assert images.notice(b"a", message(b"a")) is handle


def test_array_that_was_written_to_is_another_image() -> None:
    images, buffer = RepeatedImages(), object()
    for content in (b"first", b"second", b"third"):
        assert images.notice(buffer, message(content)) is None  # type: ignore[arg-type]


def test_tensors_are_no_files_and_never_uploaded() -> None:
    images, tensor = RepeatedImages(), attribution_pb2.Image()
    tensor.tensor.shape.append(3)
    assert images.notice(b"", tensor) is None
    assert images.notice(b"", tensor) is None


@pytest.mark.parametrize("as_path", [str, Path])
def test_untouched_file_is_not_read_again(tmp_path: Path, as_path: type[str] | type[Path]) -> None:
    images, file = RepeatedImages(), as_path(tmp_path / "film.png")
    Path(file).write_bytes(b"film")
    assert images.stand_in(file) is file
    images.notice(file, message(b"film"))
    assert images.stand_in(file) is file
    handle = images.notice(file, message(b"film"))
    assert images.stand_in(file) is handle
    assert isinstance(handle, ImageHandle)


def test_file_that_was_written_again_is_another_image(tmp_path: Path) -> None:
    images, file = RepeatedImages(), tmp_path / "film.png"
    file.write_bytes(b"film")
    os.utime(file, ns=(1, 1))
    images.notice(file, message(b"film"))
    images.notice(file, message(b"film"))
    file.write_bytes(b"FILM")
    assert images.stand_in(file) is file


def test_absent_file_is_left_to_those_who_read_it() -> None:
    assert RepeatedImages().stand_in("absent.png") == "absent.png"
    assert RepeatedImages().stand_in("\0") == "\0"


def test_bytes_that_are_kept_are_bounded() -> None:
    images = RepeatedImages(max_kept_bytes=10)
    for content in (b"aaaa", b"bbbb", b"cccc"):
        images.notice(content, message(content))
    for content in (b"aaaa", b"bbbb", b"cccc"):
        assert images.notice(content, message(content)) is not None
    assert images._kept_bytes <= 10
    assert images._kept_bytes == sum(kept.size_bytes for kept in images._seen.values() if kept)
    assert images.notice(b"a" * 4, message(b"aaaa")) is None


def test_image_above_the_bound_is_sent_by_its_handle_and_not_kept() -> None:
    images = RepeatedImages(max_kept_bytes=3)
    images.notice(b"large", message(b"large"))
    assert images.notice(b"large", message(b"large")) is not None
    assert images._kept_bytes == 0


def test_number_of_images_is_bounded(tmp_path: Path) -> None:
    images = RepeatedImages(max_images=2)
    for number in range(5):
        file = tmp_path / f"{number}.png"
        file.write_bytes(bytes([number]))
        images.notice(file, message(bytes([number])))
    assert len(images._seen) == len(images._digests) == 2
