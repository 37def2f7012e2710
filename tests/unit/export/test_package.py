import hashlib
import json

import pytest

from m2ib.v1 import manifest_pb2
from m2ib_export.errors import OutputExists, OutputInvalid
from m2ib_export.package import describe_files, whole_directory, write_manifest


class Unexpected(Exception):
    pass


def listing(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_directory_appears_whole_when_the_body_ends(tmp_path):
    with whole_directory(tmp_path / "package", is_replacing=False) as draft:
        (draft / "file").write_text("x")
        assert not (tmp_path / "package").exists()
    assert listing(tmp_path) == ["package"]
    assert listing(tmp_path / "package") == ["file"]


def test_nothing_is_left_when_the_body_raises(tmp_path):
    with pytest.raises(Unexpected), whole_directory(tmp_path / "package", is_replacing=False) as draft:
        (draft / "file").write_text("x")
        raise Unexpected
    assert listing(tmp_path) == []


def test_an_existing_directory_is_refused_before_the_body_runs(tmp_path):
    (tmp_path / "package").mkdir()
    with pytest.raises(OutputExists, match="--force"), whole_directory(tmp_path / "package", is_replacing=False):
        pytest.fail("the body ran")


def test_a_directory_that_appears_meanwhile_is_kept(tmp_path):
    with pytest.raises(OutputExists), whole_directory(tmp_path / "package", is_replacing=False):
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "theirs").write_text("x")
    assert listing(tmp_path) == ["package"]
    assert listing(tmp_path / "package") == ["theirs"]


def test_replacing_leaves_only_the_new_files(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "old").write_text("x")
    with whole_directory(tmp_path / "package", is_replacing=True) as draft:
        (draft / "new").write_text("x")
    assert listing(tmp_path) == ["package"]
    assert listing(tmp_path / "package") == ["new"]


def test_a_failed_replacement_keeps_the_old_files(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "old").write_text("x")
    with pytest.raises(Unexpected), whole_directory(tmp_path / "package", is_replacing=True):
        raise Unexpected
    assert listing(tmp_path) == ["package"]
    assert listing(tmp_path / "package") == ["old"]


@pytest.mark.parametrize("is_replacing", [False, True])
def test_a_file_in_the_way_is_never_replaced(tmp_path, is_replacing):
    (tmp_path / "package").write_text("mine")
    with (
        pytest.raises(OutputInvalid, match="seen a file"),
        whole_directory(tmp_path / "package", is_replacing=is_replacing),
    ):
        pytest.fail("the body ran")


def test_missing_parents_are_made(tmp_path):
    with whole_directory(tmp_path / "a" / "b" / "package", is_replacing=False) as draft:
        (draft / "file").write_text("x")
    assert listing(tmp_path / "a" / "b") == ["package"]
    assert listing(tmp_path / "a" / "b" / "package") == ["file"]


def test_parents_that_were_made_vanish_when_the_body_raises(tmp_path):
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "a" / "b", tmp_path / "there" / "c"):
        with pytest.raises(Unexpected), whole_directory(folder / "package", is_replacing=False):
            raise Unexpected
    assert listing(tmp_path) == ["there"]
    assert listing(tmp_path / "there") == []


def test_parents_that_others_use_meanwhile_stay(tmp_path):
    with pytest.raises(Unexpected), whole_directory(tmp_path / "a" / "package", is_replacing=False):
        (tmp_path / "a" / "theirs").write_text("x")
        raise Unexpected
    assert listing(tmp_path / "a") == ["theirs"]


def test_a_file_in_the_place_of_a_parent_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file" / "package", tmp_path / "file" / "a" / "package"):
        with pytest.raises(OutputInvalid, match="is no directory"), whole_directory(target, is_replacing=True):
            pytest.fail("the body ran")


def test_files_are_listed_with_digest_and_size_but_not_the_manifest(tmp_path):
    for name, content in (("b", b"two"), ("a", b"one" * 1_000_000), ("manifest.json", b"{}")):
        (tmp_path / name).write_bytes(content)
    first, second = describe_files(tmp_path)
    assert (first.name, first.size_bytes) == ("a", 3_000_000)
    assert first.sha256 == hashlib.sha256(b"one" * 1_000_000).hexdigest()
    assert (second.name, second.size_bytes) == ("b", 3)


def test_the_manifest_is_proto_json_with_field_names_in_order(tmp_path):
    write_manifest(tmp_path, manifest_pb2.Manifest(schema_version=1, name="x"))
    document = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert (document["schema_version"], document["name"]) == (1, "x")
    assert list(document) == sorted(document)
