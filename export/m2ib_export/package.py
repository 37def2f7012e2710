"""Owns the package directory: whole or not there at all, and a manifest with the digest of every file in it."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from google.protobuf import json_format

from m2ib.v1 import manifest_pb2
from m2ib_export.errors import OutputExists, OutputInvalid

MANIFEST_FILE = "manifest.json"
CHUNK_BYTES = 1 << 20


@contextmanager
def whole_directory(target: Path, *, is_replacing: bool) -> Iterator[Path]:
    """Give a directory to fill that takes the target's name when the body ends, and vanishes when it raises.

    Missing parents are made, and vanish likewise.
    is_replacing: whether a directory that is there already may be replaced.

    Raises:
        OutputExists: the target exists and may not be replaced.
        OutputInvalid: the target, or what should be a parent of it, exists and is no directory; or a parent or the
            draft cannot be made.
    """
    target = target.absolute()
    _check_target(target, is_replacing=is_replacing)
    draft = target.parent / f".{target.name}.{uuid4().hex}.draft"
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        _make_draft(draft)
        yield draft
        _check_target(target, is_replacing=is_replacing)  # it may have appeared meanwhile
        _replace(target, draft)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for parent in missing:  # the deepest first; one that holds something stays
            with suppress(OSError):
                parent.rmdir()


def _make_draft(draft: Path) -> None:
    try:
        draft.mkdir(parents=True)
    except OSError as cause:
        seen = f"{type(cause).__name__}: {cause.strerror}"
        raise OutputInvalid(str(draft.parent), seen=seen, allowed="a place that can be written to") from cause


def _check_target(target: Path, *, is_replacing: bool) -> None:
    for parent in target.parents:
        if parent.exists() and not parent.is_dir():
            raise OutputInvalid(str(target), seen=f"{parent} is no directory", allowed="a place in a directory")
    if target.exists() and not target.is_dir():
        raise OutputInvalid(str(target), seen="a file", allowed="a directory, or nothing")
    if target.exists() and not is_replacing:
        raise OutputExists(str(target))


def _replace(target: Path, draft: Path) -> None:
    if not target.exists():
        draft.rename(target)
        return
    retired = target.parent / f".{target.name}.{uuid4().hex}.retired"
    target.rename(retired)
    try:
        draft.rename(target)
    except OSError:
        retired.rename(target)
        raise
    shutil.rmtree(retired)


def describe_files(directory: Path) -> list[manifest_pb2.PackagedFile]:
    """List every file of the directory but the manifest, by name, with digest and size."""
    files = sorted(path for path in directory.iterdir() if path.name != MANIFEST_FILE)
    return [
        manifest_pb2.PackagedFile(name=path.name, sha256=_digest(path), size_bytes=path.stat().st_size)
        for path in files
    ]


def write_manifest(directory: Path, manifest: manifest_pb2.Manifest) -> None:
    """Write the manifest as proto JSON, sorted and indented: equal manifests have equal bytes."""
    document = json_format.MessageToDict(
        manifest, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    content = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    (directory / MANIFEST_FILE).write_text(content + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
