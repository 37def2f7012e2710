import json
from hashlib import sha256

import onnx
import pytest
from google.protobuf import json_format

from m2ib.v1 import manifest_pb2 as pb
from m2ib_export.errors import ParityMissed
from m2ib_export.exporter import EMBEDDINGS_FILE, Export, export

COMPARING = "Comparing with the original model"


@pytest.fixture(scope="module")
def manifest(tiny_package):
    return json_format.Parse((tiny_package / "manifest.json").read_text(encoding="utf-8"), pb.Manifest())


@pytest.fixture(scope="module")
def spoilt(tiny_checkpoint, tmp_path_factory):
    """A second export of the tiny checkpoint, whose files are digested and then spoilt before they are compared."""
    folder = tmp_path_factory.mktemp("spoilt")
    digests = {}

    def spoil(stage):
        if stage == COMPARING:
            (draft,) = folder.iterdir()
            digests.update({path.name: sha256(path.read_bytes()).hexdigest() for path in draft.iterdir()})
            weights = draft / "vision_tail.weights"
            weights.write_bytes(bytes(weights.stat().st_size))

    with pytest.raises(ParityMissed) as missed:
        export(Export(checkpoint=str(tiny_checkpoint), output=folder / "package", options={}), spoil)
    return folder, digests, str(missed.value)


def test_missed_parity_leaves_nothing_behind(spoilt):
    folder, _, _ = spoilt
    assert list(folder.iterdir()) == []


def test_missed_parity_names_the_figures_and_no_other(spoilt):
    _, _, message = spoilt
    assert "vision_tail.embedding: seen 1; allowed: below 0.0001" in message
    assert "vision_head" not in message
    assert "text_head" not in message
    assert "text_tail" not in message


def test_two_exports_have_the_same_digests(spoilt, manifest):
    _, digests, _ = spoilt
    assert digests == {file.name: file.sha256 for file in manifest.files}


def test_the_manifest_lists_every_file_with_its_digest(tiny_package, manifest):
    present = {path.name: sha256(path.read_bytes()).hexdigest() for path in tiny_package.iterdir()}
    del present["manifest.json"]
    assert {file.name: file.sha256 for file in manifest.files} == present
    assert all(file.size_bytes == (tiny_package / file.name).stat().st_size for file in manifest.files)


def test_the_manifest_names_all_six_graphs_with_the_ports_of_their_files(tiny_package, manifest):
    assert {graph.role for graph in manifest.graphs} == set(pb.GraphRole.values()) - {pb.GRAPH_ROLE_UNSPECIFIED}
    for graph in manifest.graphs:
        stored = onnx.load(str(tiny_package / graph.file), load_external_data=False).graph
        for ports, values in ((graph.inputs, stored.input), (graph.outputs, stored.output)):
            assert [port.name for port in ports] == [value.name for value in values]
            shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values]
            assert [list(port.shape) for port in ports] == shapes


@pytest.mark.parametrize("side", ["vision", "text"])
def test_tail_and_gradient_share_every_weight(tiny_package, side):
    places = []
    for name in (f"{side}_tail.onnx", f"{side}_tail_grad.onnx"):
        graph = onnx.load(str(tiny_package / name), load_external_data=False).graph
        external = {i.name: {entry.key: entry.value for entry in i.external_data} for i in graph.initializer}
        places.append({weight: place for weight, place in external.items() if place})
    tail, gradient = places
    assert tail == gradient
    assert {place["location"] for place in tail.values()} == {f"{side}_tail.weights"}
    last = max(int(place["offset"]) + int(place["length"]) for place in tail.values())
    assert (tiny_package / f"{side}_tail.weights").stat().st_size == last


def test_the_manifest_carries_figures_below_their_thresholds(manifest):
    names = {figure.name for figure in manifest.parity}
    assert {"vision_tail_grad.gradient", "text_tail_grad.gradient", "vision_tail.embedding"} <= names
    assert all(0 <= figure.relative_error < figure.threshold for figure in manifest.parity)


def test_reference_embeddings_have_one_row_a_text(tiny_package, manifest):
    size = (tiny_package / EMBEDDINGS_FILE).stat().st_size
    lines = (tiny_package / manifest.reference_texts.texts_file).read_text(encoding="utf-8").splitlines()
    assert manifest.reference_texts.count == len(lines)
    assert size == 4 * len(lines) * manifest.embedding_width


def test_the_manifest_holds_no_time_and_no_place(tiny_package, tiny_checkpoint):
    document = json.loads((tiny_package / "manifest.json").read_text(encoding="utf-8"))
    assert set(document) == {field.name for field in pb.Manifest.DESCRIPTOR.fields}
    assert str(tiny_checkpoint) not in json.dumps(document)
