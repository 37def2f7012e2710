"""What a look at the models' folder changes, what a model is held to take, and the file that keeps aliases."""

import json
from pathlib import Path

import pytest

from fakes.repository import write_package
from m2ib.v1 import manifest_pb2 as pb
from m2ib_server.errors import AliasesCorrupt, AliasesUnwritable, ModelMemoryExceeded, PackageCorrupt
from m2ib_server.repository.aliases import AliasFile
from m2ib_server.repository.memory import check_room, load_bytes
from m2ib_server.repository.plan import Known, Plan, plan_after
from m2ib_server.repository.shelf import Entry, find_entry, scan
from m2ib_server.runtime import DeviceKind


def entry(name, version, digest, *, fault=None, signature=(("manifest.json", 1, 1),)):
    manifest = pb.Manifest() if fault else pb.Manifest(name=name, version=version)
    return Entry(
        folder=Path(name, version), signature=signature, manifest=manifest, digest="" if fault else digest, fault=fault
    )


def known(name, version, digest):
    return {(name, version): Known(digest=digest, folder=Path(name, version))}


def plan(entries, loaded, **given):
    nothing = {"aliased": (), "dismissed": (), "failed": {}, "missing": ()}
    return plan_after(entries, loaded, **{**nothing, **given})


ONE, TWO = entry("a", "1", "d1"), entry("a", "2", "d2")


def test_what_is_new_is_loaded_and_what_is_loaded_is_left_alone():
    assert plan([ONE, TWO], known("a", "1", "d1")) == Plan(load=(TWO,))


def test_another_package_under_the_same_version_is_loaded():
    assert plan([entry("a", "1", "other")], known("a", "1", "d1")).load == (entry("a", "1", "other"),)


def test_what_an_operator_has_unloaded_is_not_loaded_again():
    assert plan([ONE, TWO], known("a", "1", "d1"), dismissed={"d2"}) == Plan()


def test_what_failed_is_tried_again_once_a_file_of_it_has_changed():
    failed = {TWO.folder: TWO.signature}
    assert plan([TWO], {}, failed=failed) == Plan()
    changed = entry("a", "2", "d2", signature=(("manifest.json", 1, 2),))
    assert plan([changed], {}, failed=failed).load == (changed,)


def test_a_version_goes_when_it_is_missing_twice():
    loaded = known("a", "1", "d1") | known("a", "2", "d2")
    first = plan([ONE], loaded)
    assert first == Plan(missing=frozenset({("a", "2")}))
    assert plan([ONE], loaded, missing=first.missing).unload == (("a", "2"),)
    assert plan([ONE, TWO], loaded, missing=first.missing) == Plan()


def test_a_version_that_an_alias_leads_to_stays():
    loaded = known("a", "1", "d1") | known("a", "2", "d2")
    kept = plan([ONE], loaded, missing=[("a", "2")], aliased=[("a", "2")])
    assert (kept.unload, kept.kept) == ((), (("a", "2"),))


def test_nothing_goes_when_nothing_at_all_is_there():
    assert plan([], known("a", "1", "d1"), missing=[("a", "1")]) == Plan()


def test_a_package_whose_manifest_cannot_be_read_just_now_is_neither_loaded_nor_missing():
    half = entry("a", "2", "", fault=PackageCorrupt("a/2", seen="half a manifest", allowed="a whole one"))
    assert plan([ONE, half], known("a", "1", "d1") | known("a", "2", "d2"), missing=[("a", "2")]) == Plan()


def test_a_folder_is_read_by_its_manifests_in_the_order_of_versions(tiny_package, tmp_path):
    write_package(tiny_package, tmp_path / "tiny" / "x", version="10")
    write_package(tiny_package, tmp_path / "tiny" / "y", version="9")
    write_package(tiny_package, tmp_path / "flat", name="flat", version="1")
    write_package(tiny_package, tmp_path / ".partial", version="11")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "manifest.json").write_text('{"name": "ha')
    entries = scan(tmp_path)
    assert [each.key for each in entries] == [("flat", "1"), ("half", ""), ("tiny", "9"), ("tiny", "10")]
    assert [each.fault is None for each in entries] == [True, False, True, True]
    assert find_entry(entries, "tiny", "").key == ("tiny", "10")
    assert find_entry(entries, "tiny", "9").folder == tmp_path / "tiny" / "y"
    assert find_entry(entries, "tiny", "8") is None


def test_a_version_that_lies_there_twice_is_at_fault_the_second_time(tiny_package, tmp_path):
    for name in ("a", "b"):
        write_package(tiny_package, tmp_path / name)
    first, second = scan(tmp_path)
    assert first.fault is None
    assert "a second model 'tiny:1'" in str(second.fault)


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert scan(tmp_path / "gone") == ()


def manifest(precision):
    weights = {"vision_head": 100, "vision_tail": 10, "text_head": 200, "text_tail": 20}
    graphs = [
        pb.Graph(role=role, weights_file=name)
        for role, name in (
            (pb.GRAPH_ROLE_VISION_HEAD, "vision_head"),
            (pb.GRAPH_ROLE_VISION_TAIL, "vision_tail"),
            (pb.GRAPH_ROLE_VISION_TAIL_GRAD, "vision_tail"),
            (pb.GRAPH_ROLE_TEXT_HEAD, "text_head"),
            (pb.GRAPH_ROLE_TEXT_TAIL, "text_tail"),
            (pb.GRAPH_ROLE_TEXT_TAIL_GRAD, "text_tail"),
        )
    ]
    files = [pb.PackagedFile(name=name, size_bytes=size) for name, size in {**weights, "tokenizer": 3}.items()]
    return pb.Manifest(precision=precision, graphs=graphs, files=files)


@pytest.mark.parametrize(
    ("precision", "kind", "devices", "expected"),
    [
        ("fp32", DeviceKind.CPU, 1, 300 + 30 + 30 + 3),
        ("fp32", DeviceKind.CPU, 3, 3 * (300 + 30) + 30 + 3),
        ("fp16", DeviceKind.CPU, 1, 2 * (300 + 60) + 3),
        ("bf16", DeviceKind.CPU, 2, 2 * 2 * (300 + 60) + 3),
        ("fp16", DeviceKind.CUDA, 2, 2 * (300 + 60) + 3),
    ],
)
def test_a_model_is_held_to_take_what_its_sessions_copy_and_a_fifth(precision, kind, devices, expected):
    assert load_bytes(manifest(precision), kind, devices) == expected * 6 // 5


def test_a_model_that_does_not_fit_is_refused_with_what_it_needs_what_is_used_and_what_may_be():
    check_room(50, 50, 100)
    check_room(10**12, 10**12, 0)
    with pytest.raises(ModelMemoryExceeded, match=r"needs 51 bytes .* take 50 of 100"):
        check_room(51, 50, 100)


def test_aliases_are_kept_and_found_again_and_empty_ones_are_not_written(tmp_path):
    file = AliasFile(tmp_path / "aliases.json")
    assert file.read() is None  # not there, which is not the same as one that holds nothing
    file.write({})
    assert file.read() == {}
    file.write({"tiny": {"champion": "1"}, "other": {}})
    assert file.read() == {"tiny": {"champion": "1"}}
    assert list(tmp_path.iterdir()) == [file.path]  # nothing half-written is left


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 2, "aliases": {}}',
        '{"schema": 1}',
        '{"schema": 1, "aliases": {"tiny": "1"}}',
        '{"schema": 1, "aliases": {"tiny": {"latest": "1"}}}',
        '{"schema": 1, "aliases": {"tiny": {"champion": 1}}}',
        '{"schema": 1, "aliases": {"tiny": {"a:b": "1"}}}',
    ],
)
def test_a_file_of_aliases_that_no_server_wrote_is_refused(tmp_path, text):
    path = tmp_path / "aliases.json"
    path.write_text(text)
    with pytest.raises(AliasesCorrupt, match=r"aliases\.json: seen"):
        AliasFile(path).read()


def test_aliases_that_cannot_be_kept_change_nothing(tmp_path):
    with pytest.raises(AliasesUnwritable):
        AliasFile(tmp_path / "gone" / "aliases.json").write({"tiny": {"champion": "1"}})
    taken = tmp_path / "aliases.json"
    taken.mkdir()
    (taken / "entry").touch()
    with pytest.raises(AliasesUnwritable):
        AliasFile(taken).write({"tiny": {"champion": "1"}})
    assert [path.name for path in tmp_path.iterdir()] == ["aliases.json"]


def test_the_file_of_aliases_says_what_it_is(tmp_path):
    AliasFile(tmp_path / "a").write({"b": {"champion": "2"}, "a": {"shadow": "1", "champion": "2"}})
    written = json.loads((tmp_path / "a").read_text())
    assert written == {"schema": 1, "aliases": {"a": {"champion": "2", "shadow": "1"}, "b": {"champion": "2"}}}
