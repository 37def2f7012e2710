"""Owns the passes from a float32 graph to half precision: products in 16 bits, and their stand-in for other hardware.

What torch's autocast does, on a finished graph: the inputs of products are rounded to 16 bits and so are their outputs;
residual streams, softmax, layer norms, activations, the similarity and all ports stay float32.
"""

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as passes

from m2ib_export.precision import Precision

PRODUCTS = {
    Precision.FP16: frozenset({"Conv", "Gemm", "MatMul"}),
    Precision.BF16: frozenset({"Gemm", "MatMul"}),
}
"""Operators that multiply and add: where the time goes. ONNX has no Conv in bfloat16 at the opset in use."""
ELEMENT_TYPE = {Precision.FP16: ir.DataType.FLOAT16, Precision.BF16: ir.DataType.BFLOAT16}
STORAGE_TYPE: dict[Precision, npt.DTypeLike] = {Precision.FP16: np.float16, Precision.BF16: ml_dtypes.bfloat16}
MOVEMENTS = frozenset({"Concat", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that move values and compute none, so that rounding before them equals rounding after them."""
FLOAT_INPUTS = {"Concat": None, "Conv": None, "Gemm": None, "MatMul": None}
"""How many inputs, from the first on, are numbers to round; None for all of them, and 1 for what is not listed."""


def halve_products(model: ir.Model, precision: Precision) -> None:
    """Evaluate products, and look up large tables, in 16 bits; their weights become initialisers of 16 bits.

    precision: a half one. The graph is of float32 before, and has plain operators.
    """
    halving = _Halving(model.graph, precision)
    for node in list(model.graph):
        if node.op_type in PRODUCTS[precision] or _is_lookup(node):
            halving.replace(node)
    passes.RemoveUnusedNodesPass()(model)


def widen_products(model: ir.Model, precision: Precision) -> None:
    """Evaluate the products of a halved graph in float32, inputs and outputs still rounded to 16 bits.

    A half product accumulates in float32 and rounds once, so that this is the same computation but for the order of
    its sums. It runs where there are no half products, and rounds where ONNX Runtime would not: on the CPU it replaces
    float16 products by float32 ones and drops the casts around them.
    """
    graph = model.graph
    widened: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node.op_type in PRODUCTS[precision]:
            inputs = [value and _cached_cast(graph, node, value, ir.DataType.FLOAT, widened) for value in node.inputs]
            product = _with_inputs(node, inputs)
            rounded = _cast(product.outputs[0], ELEMENT_TYPE[precision])
            ir.convenience.replace_nodes_and_values(
                graph, node, [node], [product, rounded], node.outputs, rounded.outputs
            )
    passes.RemoveUnusedNodesPass()(model)


class _Halving:
    """One graph's pass; knows which values exist in 16 bits already."""

    def __init__(self, graph: ir.Graph, precision: Precision) -> None:
        self._graph = graph
        self._precision = precision
        self._half: dict[ir.Value, ir.Value] = {}

    def replace(self, node: ir.Node) -> None:
        """Replace a node by one in 16 bits and a cast of its output back to float32."""
        half = self._with_halved_inputs(node, node)
        full = _cast(half.outputs[0], ir.DataType.FLOAT)
        ir.convenience.replace_nodes_and_values(self._graph, node, [node], [half, full], node.outputs, full.outputs)
        self._half[full.outputs[0]] = half.outputs[0]

    def _halved(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """Return the value in 16 bits, made before its reader if need be; moving goes on in 16 bits."""
        if value not in self._half:
            producer = value.producer()
            if value.is_initializer():
                self._half[value] = self._halved_weight(value)
            elif producer is not None and producer.op_type in MOVEMENTS:
                movement = self._with_halved_inputs(producer, reader)
                self._graph.insert_before(reader, movement)
                self._half.update(zip(producer.outputs, movement.outputs, strict=True))
            else:
                cast = _cast(value, ELEMENT_TYPE[self._precision])
                self._graph.insert_before(reader, cast)
                self._half[value] = cast.outputs[0]
        return self._half[value]

    def _halved_weight(self, weight: ir.Value) -> ir.Value:
        assert weight.const_value is not None
        name = f"{weight.name}_half"
        rounded = ir.Tensor(weight.const_value.numpy().astype(STORAGE_TYPE[self._precision]), name=name)
        half = ir.Value(
            name=name, shape=ir.Shape(rounded.shape), type=ir.TensorType(rounded.dtype), const_value=rounded
        )
        self._graph.register_initializer(half)
        return half

    def _with_halved_inputs(self, node: ir.Node, reader: ir.Node) -> ir.Node:
        """Copy a node that is to stand before the reader, its numbers in 16 bits and its shapes and indices as is."""
        count = FLOAT_INPUTS.get(node.op_type, 1)
        numbers, others = node.inputs[:count], node.inputs[count:] if count else ()
        return _with_inputs(node, [*(value and self._halved(value, reader) for value in numbers), *others])


def _is_lookup(node: ir.Node) -> bool:
    """Whether the node looks up rows of a table of weights, as the token embedding does."""
    table = node.inputs[0] if node.op_type == "Gather" else None
    weight = None if table is None else table.const_value
    return weight is not None and weight.dtype == ir.DataType.FLOAT


def _cached_cast(
    graph: ir.Graph, reader: ir.Node, value: ir.Value, to: ir.DataType, made: dict[ir.Value, ir.Value]
) -> ir.Value:
    if value not in made:
        cast = _cast(value, to)
        graph.insert_before(reader, cast)
        made[value] = cast.outputs[0]
    return made[value]


def _cast(value: ir.Value, to: ir.DataType) -> ir.Node:
    return ir.Node("", "Cast", [value], attributes=[ir.AttrInt64("to", to)])


def _with_inputs(node: ir.Node, inputs: list[ir.Value | None]) -> ir.Node:
    return ir.Node(
        node.domain, node.op_type, inputs, attributes=list(node.attributes.values()), num_outputs=len(node.outputs)
    )
