import numpy as np
import onnx_ir as ir
import pytest

from m2ib_export.weights import ALIGNMENT_BYTES, INLINE_BELOW_BYTES, WeightsFile

LARGE = np.arange(600, dtype=np.float32).reshape(20, 30)
SMALL = np.ones(8, dtype=np.float32)


def graph_of(**initialisers):
    values = [ir.Value(name=name, const_value=ir.Tensor(array, name=name)) for name, array in initialisers.items()]
    nodes = [ir.Node("", "Identity", [value], name=f"read_{value.name}") for value in values]
    outputs = [node.outputs[0] for node in nodes]
    return ir.Graph([], outputs, nodes=nodes, initializers=values, opset_imports={"": 20})


def placed(graph):
    return {
        name: (value.const_value.offset, value.const_value.length)
        for name, value in graph.initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    }


@pytest.fixture
def weights(tmp_path):
    with WeightsFile(tmp_path / "tail.weights") as opened:
        yield opened


def test_two_graphs_share_a_weight_of_equal_content(weights, tmp_path):
    first, second = graph_of(a=LARGE, b=-LARGE), graph_of(other=-LARGE, another=LARGE)
    weights.take(first)
    weights.take(second)
    weights.__exit__(None, None, None)
    assert placed(first) == placed(second)
    assert (tmp_path / "tail.weights").stat().st_size == ALIGNMENT_BYTES + LARGE.nbytes


def test_equal_weights_of_one_graph_become_one(weights):
    graph = graph_of(a=LARGE, b=LARGE.copy())
    weights.take(graph)
    assert len(graph.initializers) == 1
    assert {node.inputs[0].name for node in graph} == set(graph.initializers)


def test_equal_bytes_of_another_shape_stay_apart(weights):
    graph = graph_of(a=LARGE, b=LARGE.reshape(30, 20))
    weights.take(graph)
    assert sorted(list(value.const_value.shape.numpy()) for value in graph.initializers.values()) == [
        [20, 30],
        [30, 20],
    ]


def test_weights_start_at_whole_pages_and_hold_their_bytes(weights, tmp_path):
    graph = graph_of(a=LARGE, b=-LARGE, c=2 * LARGE)
    weights.take(graph)
    weights.__exit__(None, None, None)
    content = (tmp_path / "tail.weights").read_bytes()
    places = placed(graph).values()
    assert all(offset % ALIGNMENT_BYTES == 0 for offset, _ in places)
    assert {content[offset : offset + length] for offset, length in places} == {
        array.tobytes() for array in (LARGE, -LARGE, 2 * LARGE)
    }


def test_a_small_constant_stays_in_the_graph(weights):
    graph = graph_of(small=SMALL)
    assert SMALL.nbytes < INLINE_BELOW_BYTES
    weights.take(graph)
    assert placed(graph) == {}
    assert set(graph.initializers) == {"small"}
