import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from torch import nn

from m2ib.v1 import manifest_pb2 as pb
from m2ib_export.gradient import similarity_and_gradient, trace_gradient
from m2ib_export.graph import example_inputs, to_graph, write_graph
from m2ib_export.half import ELEMENT_TYPE, MOVEMENTS, PRODUCTS, STORAGE_TYPE, halve_products, widen_products
from m2ib_export.precision import FP16_GRADIENT_SCALE, Precision
from m2ib_export.signature import BATCH, Port, Signature
from m2ib_export.weights import WeightsFile

HALVES = [Precision.FP16, Precision.BF16]
NAMES = ["vision_head", "vision_tail", "vision_tail_grad", "text_head", "text_tail", "text_tail_grad"]
LENGTH = 1e6


def write(model, path):
    """Write a graph with weights of its own."""
    with WeightsFile(path.with_suffix(".weights")) as weights:
        weights.take(model.graph)
    write_graph(model, path)
    return path


@pytest.fixture(scope="module", params=HALVES)
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def halved(tiny_package, precision, tmp_path_factory):
    """The tiny package's graphs after the first pass and after both, by name."""
    folder, paths = tmp_path_factory.mktemp(precision), {}
    for name in NAMES:
        model = ir.load(tiny_package / f"{name}.onnx")
        halve_products(model, precision)
        half = write(model, folder / f"{name}.onnx")
        widen_products(model, precision)
        write_graph(model, folder / f"{name}.portable.onnx")
        paths[name] = half, folder / f"{name}.portable.onnx"
    return paths


def typed(path):
    """A graph and the element type of each of its values."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}
    return graph, types | {initialiser.name: initialiser.data_type for initialiser in graph.initializer}


def types_of(names, types):
    return {types[name] for name in names if name}


def inputs_of(path):
    """Seeded inputs of a graph, three rows of seven tokens."""
    draw, feed = np.random.default_rng(3), {}
    for port in onnx.load(str(path), load_external_data=False).graph.input:
        shape = [dim.dim_value or {"batch": 3, "tokens": 7}[dim.dim_param] for dim in port.type.tensor_type.shape.dim]
        is_integer = port.type.tensor_type.elem_type == onnx.TensorProto.INT64
        feed[port.name] = np.ones(shape, np.int64) if is_integer else draw.standard_normal(shape, np.float32)
    return feed


def evaluate(path, feed):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)


def largest_difference(ours, expected):
    return max(np.abs(one - other).max() / np.abs(other).max() for one, other in zip(ours, expected, strict=True))


def test_every_half_precision_has_operators_and_types():
    assert set(HALVES) == {precision for precision in Precision if precision.is_half}
    assert set(PRODUCTS) == set(ELEMENT_TYPE) == set(STORAGE_TYPE) == set(HALVES)


@pytest.mark.parametrize("name", NAMES)
def test_products_are_of_16_bits_and_all_arithmetic_else_of_32(halved, precision, name):
    graph, types = typed(halved[name][0])
    half = int(ELEMENT_TYPE[precision])
    for node in graph.node:
        if node.op_type in PRODUCTS[precision]:
            assert types_of([*node.input, *node.output], types) == {half}
        elif node.op_type not in {"Cast", "Gather", *MOVEMENTS}:
            assert half not in types_of([*node.input, *node.output], types), node.op_type
    assert [node.op_type for node in graph.node if node.op_type in PRODUCTS[precision]]


@pytest.mark.parametrize("kind", ["Softmax", "LayerNormalization", "Sigmoid", "ReduceSum"])
def test_softmax_norm_activation_and_similarity_read_float32(halved, kind):
    graph, types = typed(halved["vision_tail_grad"][0])
    found = [node for node in graph.node if node.op_type == kind]
    assert found
    assert all(types[node.input[0]] == onnx.TensorProto.FLOAT for node in found)


@pytest.mark.parametrize("name", NAMES)
def test_ports_stay_as_they_were(tiny_package, halved, name):
    plain, *others = (
        onnx.load(str(path), load_external_data=False).graph for path in (tiny_package / f"{name}.onnx", *halved[name])
    )
    for graph in others:
        assert list(graph.input) == list(plain.input)
        assert list(graph.output) == list(plain.output)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_products_and_the_token_table_are_stored_in_16_bits(halved, precision, name):
    graph, types = typed(halved[name][0])
    weights = {i.name: i for i in graph.initializer if i.data_type != onnx.TensorProto.INT64 and len(i.dims) > 1}
    readers = {"Gather", "Transpose", *PRODUCTS[precision]}
    read = {value for node in graph.node if node.op_type in readers for value in node.input}
    stored = {types[weight] for weight in weights if weight in read}
    assert stored == {int(ELEMENT_TYPE[precision])}


@pytest.mark.parametrize("name", NAMES)
def test_values_that_go_from_product_to_product_stay_in_16_bits(halved, precision, name):
    graph, _ = typed(halved[name][0])
    producer = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type != "Cast" or node.attribute[0].i != int(ELEMENT_TYPE[precision]):
            continue
        source = producer.get(node.input[0])
        assert source is None or source.op_type not in MOVEMENTS, source
        assert source is None or source.op_type != "Cast" or node.attribute[0].i == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("name", NAMES)
def test_portable_products_are_of_32_bits_and_read_rounded_values(halved, precision, name):
    graph, types = typed(halved[name][1])
    producer = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in PRODUCTS[precision]:
            assert types_of([*node.input, *node.output], types) == {onnx.TensorProto.FLOAT}
            casts = [producer[value] for value in node.input if value]
            assert {cast.op_type for cast in casts} == {"Cast"}
            assert types_of([cast.input[0] for cast in casts], types) == {int(ELEMENT_TYPE[precision])}


@pytest.mark.parametrize("name", NAMES)
def test_the_portable_graph_computes_what_the_half_graph_does(halved, precision, name):
    """The half graph runs on no CPU provider; ONNX's own reference evaluates it, in numpy."""
    half, portable = halved[name]
    feed = inputs_of(half)
    expected = ReferenceEvaluator(str(half)).run(None, feed)
    one_rounding = float(ml_dtypes.finfo(STORAGE_TYPE[precision]).eps) / 2
    assert largest_difference(evaluate(portable, feed), expected) < 8 * one_rounding


def one_product():
    """x [2, 4] times a weight [4, 8], in float32."""
    draw = np.random.default_rng(5)
    weight = ir.Tensor(draw.uniform(1, 2, (4, 8)).astype(np.float32), name="weight")
    value = ir.Value(name="weight", const_value=weight, shape=ir.Shape([4, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    x = ir.Value(name="x", shape=ir.Shape([2, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    product = ir.Node("", "MatMul", [x, value], name="product")
    (y,) = product.outputs
    y.name, y.shape, y.type = "y", ir.Shape([2, 8]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], [y], nodes=[product], initializers=[value], opset_imports={"": 20}, name="one")
    return ir.Model(graph, ir_version=10), draw.uniform(1, 2, (2, 4)).astype(np.float32), weight.numpy()


def test_onnx_runtime_rounds_where_the_portable_graph_says(precision, tmp_path):
    """Between 1 and 2 every sum of four products is exact in float32, so that the bits can be foretold."""
    model, x, weight = one_product()
    halve_products(model, precision)
    widen_products(model, precision)
    (seen,) = evaluate(write(model, tmp_path / "one.onnx"), {"x": x})
    half = STORAGE_TYPE[precision]
    exact = x.astype(half).astype(np.float32) @ weight.astype(half).astype(np.float32)
    assert np.array_equal(seen, exact.astype(half).astype(np.float32))
    assert not np.array_equal(seen, (x @ weight).astype(half).astype(np.float32))


def test_onnx_runtime_on_a_cpu_drops_the_roundings_of_fp16_products(tmp_path):
    """Why there are portable graphs for fp16; should this ever fail, they are no longer needed."""
    model, x, weight = one_product()
    halve_products(model, Precision.FP16)
    (seen,) = evaluate(write(model, tmp_path / "one.onnx"), {"x": x})
    np.testing.assert_array_equal(seen, x @ weight.astype(np.float16).astype(np.float32))


class LongEmbedding(nn.Module):
    """A tail whose embedding is so long that the gradient of its similarity is some 1e-7."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(24, 16, bias=False)

    def forward(self, features):
        return self.projection(features.mean(dim=1)) + LENGTH


@pytest.mark.parametrize(("scale", "is_kept"), [(1.0, False), (FP16_GRADIENT_SCALE, True)])
def test_the_scale_keeps_small_gradients_from_vanishing(tmp_path, scale, is_kept):
    signature = Signature(
        role=pb.GRAPH_ROLE_VISION_TAIL_GRAD,
        name="long_grad",
        weights_name="long",
        inputs=(Port(name="features", shape=(BATCH, 5, 24)), Port(name="target", shape=(BATCH, 16))),
        outputs=(Port(name="similarity", shape=(BATCH,)), Port(name="gradient", shape=(BATCH, 5, 24))),
    )
    tail = LongEmbedding().eval().requires_grad_(False)
    features, target = example_inputs(signature, {BATCH: 3})
    traced = trace_gradient(tail, (features, target), scale=scale)
    model = to_graph(traced, (features, target), signature, max_tokens=5)
    halve_products(model, Precision.FP16)
    widen_products(model, Precision.FP16)
    feed = {"features": features.numpy(), "target": target.numpy()}
    _, gradient = evaluate(write(model, tmp_path / "long.onnx"), feed)
    _, expected = similarity_and_gradient(tail, features, target)
    assert bool(largest_difference([gradient], [expected.numpy()]) < 0.01) is is_kept
