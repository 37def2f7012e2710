import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from m2ib.v1 import manifest_pb2 as pb
from m2ib_export.blocks import Mlp
from m2ib_export.gradient import similarity_and_gradient, trace_gradient
from m2ib_export.graph import example_inputs, to_graph, write_graph
from m2ib_export.signature import BATCH, TOKENS, Port, Signature
from m2ib_export.weights import WeightsFile

FEATURES = Port(name="features", shape=(BATCH, TOKENS, 24))
SIZES = {BATCH: 3, TOKENS: 5}
GRADIENT = Signature(
    role=pb.GRAPH_ROLE_VISION_TAIL_GRAD,
    name="toy_grad",
    weights_name="toy",
    inputs=(FEATURES, Port(name="target", shape=(BATCH, 24))),
    outputs=(Port(name="similarity", shape=(BATCH,)), Port(name="gradient", shape=FEATURES.shape)),
)


class Toy(nn.Module):
    """A tail in miniature: an MLP over tokens, then their mean."""

    def __init__(self):
        super().__init__()
        self.mlp = Mlp(up=nn.Linear(24, 40), down=nn.Linear(40, 24), activation=torch.nn.functional.gelu)

    def forward(self, features):
        return self.mlp(features).mean(dim=1)


def toy():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Toy().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The gradient graph of the toy, written twice."""
    return [write(tmp_path_factory.mktemp("toy")) for _ in range(2)]


def write(directory):
    example = example_inputs(GRADIENT, SIZES)
    model = to_graph(trace_gradient(toy(), example), example, GRADIENT, max_tokens=9)
    with WeightsFile(directory / GRADIENT.weights_file) as weights:
        weights.take(model.graph)
    write_graph(model, directory / GRADIENT.file)
    return directory / GRADIENT.file


def test_two_exports_have_the_same_bytes(written):
    first, second = written
    assert first.read_bytes() == second.read_bytes()
    assert (
        first.with_suffix(".onnx").parent.joinpath("toy.weights").read_bytes()
        == (second.parent / "toy.weights").read_bytes()
    )


def test_forward_and_backward_read_one_untransposed_copy_of_each_weight(written):
    graph = onnx.load(str(written[0]), load_external_data=False).graph
    names = {initialiser.name for initialiser in graph.initializer if initialiser.external_data}
    assert sorted(tuple(i.dims) for i in graph.initializer if i.name in names) == [(24, 40), (40, 24)]
    assert not [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in names]
    readers = [node for node in graph.node if names & set(node.input)]
    assert [node.op_type for node in readers] == ["Gemm"] * 4


def test_a_graph_has_plain_operators_and_the_signatures_ports(written):
    model = onnx.load(str(written[0]), load_external_data=False)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert [port.name for port in model.graph.input] == ["features", "target"]
    assert [port.name for port in model.graph.output] == ["similarity", "gradient"]
    dims = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", "tokens", 24]


def test_a_graph_tells_nothing_of_the_machine(written):
    content = written[0].read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content


@pytest.mark.parametrize(("rows", "tokens"), [(1, 2), (2, 9), (7, 3)])
def test_the_gradient_is_autograds_at_unseen_sizes(written, rows, tokens):
    features, target = torch.randn(rows, tokens, 24), torch.randn(rows, 24)
    session = ort.InferenceSession(str(written[0]), providers=["CPUExecutionProvider"])
    ours = session.run(None, {"features": features.numpy(), "target": target.numpy()})
    for found, expected in zip(ours, similarity_and_gradient(toy(), features, target), strict=True):
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-6)
