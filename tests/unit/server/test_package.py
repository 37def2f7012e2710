import hashlib
import json
import shutil

import pytest

from m2ib_server.errors import PackageCorrupt
from m2ib_server.package import Role, find_packages, open_package
from m2ib_server.package.signature import PORTS_BY_ROLE


@pytest.fixture
def package(tiny_package, tmp_path):
    return shutil.copytree(tiny_package, tmp_path / "package")


def edit(package, change):
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rewrite(package, name, content):
    """Change a file and make its digest right again."""
    (package / name).write_bytes(content)
    fresh = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    edit(package, lambda manifest: [f.update(fresh) for f in manifest["files"] if f["name"] == name])


def refused(package, *words):
    with pytest.raises(PackageCorrupt) as caught:
        open_package(package)
    for word in words:
        assert word in str(caught.value)


def test_a_whole_package_opens(package):
    opened = open_package(package)
    assert opened.digest == hashlib.sha256((package / "manifest.json").read_bytes()).hexdigest()
    assert {opened.graph(role).role for role in Role} == {role.value for role in Role}
    assert opened.reference_embeddings().shape == (len(opened.reference_texts()), opened.manifest.embedding_width)


def test_a_changed_byte_of_any_file_is_refused_by_the_files_name(package):
    names = [packaged.name for packaged in open_package(package).manifest.files]
    assert len(names) == len(list(package.iterdir())) - 1
    for name in names:
        content = (package / name).read_bytes()
        (package / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        refused(package, name, "SHA-256")
        (package / name).write_bytes(content)
    open_package(package)


def test_a_missing_or_shortened_file_is_refused_by_its_name(package):
    content = (package / "tokenizer.json").read_bytes()
    (package / "tokenizer.json").write_bytes(content[:-1])
    refused(package, "tokenizer.json", f"{len(content) - 1} bytes")
    (package / "tokenizer.json").unlink()
    refused(package, "tokenizer.json", "no such file")


def test_a_missing_or_broken_manifest_is_refused(package):
    (package / "manifest.json").write_text("{")
    refused(package, "manifest.json", "no manifest of this contract")
    (package / "manifest.json").write_bytes(b"\xff\xfe")
    refused(package, "manifest.json", "no manifest of this contract")
    (package / "manifest.json").unlink()
    refused(package, "manifest.json", "no readable file")


@pytest.mark.parametrize("version", [0, 1, 3])
def test_another_schema_version_is_refused(package, version):
    edit(package, lambda manifest: manifest.update(schema_version=version))
    refused(package, "manifest.json", f"schema version {version}", "schema version 2")


@pytest.mark.parametrize("precision", ["", "fp8", "FP16"])
def test_an_unknown_precision_is_refused(package, precision):
    edit(package, lambda manifest: manifest.update(precision=precision))
    refused(package, "manifest.json", f"precision {precision!r}", "fp32, fp16, bf16")


def test_an_unknown_field_is_refused(package):
    edit(package, lambda manifest: manifest.update(scaling="secret"))
    refused(package, "manifest.json")


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "x" * 65])
def test_a_malformed_model_name_is_refused(package, name):
    edit(package, lambda manifest: manifest.update(name=name))
    refused(package, "malformed name")


def test_a_missing_or_doubled_graph_is_refused(package):
    edit(package, lambda manifest: manifest["graphs"].pop())
    refused(package, "each graph role once")
    edit(package, lambda manifest: manifest["graphs"].append(manifest["graphs"][0]))
    refused(package, "each graph role once")


def test_a_file_without_a_digest_is_refused(package):
    edit(package, lambda manifest: manifest.update(files=[f for f in manifest["files"] if "weights" not in f["name"]]))
    refused(package, "no digest for", "weights")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", ".hidden", ""])
def test_a_file_name_that_leaves_the_package_is_refused(package, name):
    edit(package, lambda manifest: manifest["files"].append({"name": name, "sha256": "0" * 64, "size_bytes": 1}))
    refused(package, "a file name that is not plain")


def test_reference_embeddings_of_another_count_are_refused(package):
    edit(package, lambda manifest: manifest["reference_texts"].update(count=3))
    refused(package, "reference_embeddings")


def test_every_role_has_ports():
    assert set(PORTS_BY_ROLE) == set(Role)


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize(
    "change",
    [
        lambda port: port.update(name="other"),
        lambda port: port.update(element_type="ELEMENT_TYPE_UNSPECIFIED"),
        lambda port: port["shape"].append(1),
    ],
    ids=["name", "type", "rank"],
)
def test_a_graph_with_other_ports_than_its_role_has_is_refused(package, kind, change):
    edit(package, lambda manifest: change(manifest["graphs"][2][kind][0]))
    refused(package, "manifest.json", "GRAPH_ROLE_VISION_TAIL_GRAD", "features ELEMENT_TYPE_FLOAT32 of 3 dimensions")


def test_a_package_without_reference_texts_is_refused(package):
    rewrite(package, "reference_texts.txt", b"")
    rewrite(package, "reference_embeddings.f32", b"")
    edit(package, lambda manifest: manifest["reference_texts"].update(count=0))
    refused(package, "manifest.json", "no reference text")


def test_reference_texts_that_are_not_utf_8_are_refused(package):
    rewrite(package, "reference_texts.txt", b"\xff\xfe")
    refused(package, "reference_texts.txt", "not UTF-8")


@pytest.mark.parametrize("shape", ["channel", "token"])
@pytest.mark.parametrize(
    "change",
    [{"beta": 0}, {"beta": 101}, {"beta": "NaN"}, {"steps": 0}, {"samples": 0}, {"learning_rate": -1}],
    ids=str,
)
def test_defaults_out_of_range_are_refused(package, shape, change):
    edit(package, lambda manifest: manifest["defaults"][shape].update(change))
    refused(package, "manifest.json", f"defaults.{shape} out of range")


def test_defaults_that_are_not_said_are_refused(package):
    whole = (package / "manifest.json").read_text()
    edit(package, lambda manifest: manifest["defaults"]["efforts"].pop())
    refused(package, "manifest.json", "3 efforts, or one twice")
    (package / "manifest.json").write_text(whole)
    edit(package, lambda manifest: manifest["defaults"]["efforts"][1].update(repeats=0))
    refused(package, "manifest.json", "defaults.efforts.EFFORT_FAST out of range")
    (package / "manifest.json").write_text(whole)
    for field in ("mask_shape", "text_mask_shape"):
        edit(package, lambda manifest, field=field: manifest["defaults"]["efforts"][1].update({field: 7}))
        refused(package, "manifest.json", "defaults.efforts.EFFORT_FAST out of range")
        (package / "manifest.json").write_text(whole)
    edit(package, lambda manifest: manifest["defaults"]["efforts"][2]["settings"].update(textBeta=0))
    refused(package, "manifest.json", "defaults.efforts.EFFORT_SPECIFIC out of range")
    (package / "manifest.json").write_text(whole)
    edit(package, lambda manifest: manifest["preprocessing"].pop("default_fit"))
    refused(package, "manifest.json", "no default fit")


def test_packages_are_found_up_to_two_levels_down(package, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(package, models / "a")
    shutil.copytree(package, models / "b" / "1")
    shutil.copytree(package, models / ".partial")
    assert find_packages(models) == (models / "a", models / "b" / "1")
    assert find_packages(package) == (package,)
    with pytest.raises(PackageCorrupt, match=r"no manifest.json"):
        find_packages(models / "b" / "1" / "none")
