"""Owns the step from a module to an ONNX graph: plain operators, one layout per weight, no trace of the machine."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer
from torch import Tensor, nn
from torch.export import Dim

from m2ib_export.signature import BATCH, TOKENS, Port, Signature

OPSET = 20
MAX_BATCH = 4096
MIN_TOKENS = 2
MATRIX_TRANSPOSE = [1, 0]
MATRIX_RANK = 2


def to_graph(module: nn.Module, example: tuple[Tensor, ...], signature: Signature, *, max_tokens: int) -> ir.Model:
    """Export a module of plain operators to ONNX.

    module: frozen, in eval mode; its inputs and outputs are the signature's ports, in order.
    example: inputs with a batch and, where tokens are dynamic, tokens of at least 2.
    max_tokens: the longest text, in tokens.
    """
    with torch.no_grad(), _quiet_exporter():
        exported = torch.export.export(
            module, example, strict=False, dynamic_shapes=_dynamic_shapes(signature.inputs, max_tokens)
        )
        program = torch.onnx.export(
            exported,
            dynamo=True,
            verbose=False,
            optimize=False,  # it would store a transposed copy of every weight
            opset_version=OPSET,
            input_names=[port.name for port in signature.inputs],
            output_names=[port.name for port in signature.outputs],
        )
    if program is None:
        raise RuntimeError(f"{signature.name}: the ONNX exporter gave no program")
    model = program.model
    optimizer.optimize_ir(model, should_fold=_should_fold)
    _multiply_without_transposing(model.graph)
    passes.RemoveUnusedNodesPass()(model)
    _describe(model, signature)
    return model


def write_graph(model: ir.Model, path: Path) -> None:
    """Write the graph, its weights already placed elsewhere, to a file with the same bytes every time."""
    path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what torch's exporter says of itself: deprecations inside it and packages that it would also know."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _dynamic_shapes(ports: tuple[Port, ...], max_tokens: int) -> tuple[dict[int, Dim], ...]:
    dims = {
        BATCH: Dim(BATCH, min=1, max=MAX_BATCH),
        TOKENS: Dim(TOKENS, min=MIN_TOKENS, max=max_tokens),
    }
    return tuple({axis: dims[size] for axis, size in enumerate(port.shape) if isinstance(size, str)} for port in ports)


def _should_fold(node: ir.Node) -> bool | None:
    """Leave transposes of weights in place: they become attributes of the products that read them."""
    return False if node.op_type == "Transpose" else None


def _multiply_without_transposing(graph: ir.Graph) -> None:
    """Let products read a transposed weight as it lies, so that forward and backward share one copy of it."""
    for node in list(graph):
        if node.op_type in {"Gemm", "MatMul"}:
            _absorb_transpose(graph, node)


def _absorb_transpose(graph: ir.Graph, product: ir.Node) -> None:
    left, right, *addend = product.inputs
    weight, is_transposed = _weight_behind(right)
    if weight is None or left is None or _rank(left) != MATRIX_RANK or right is weight:
        return
    attributes = dict(product.attributes) if product.op_type == "Gemm" else {}
    is_transposed ^= bool(attributes["transB"].as_int()) if "transB" in attributes else False
    attributes["transB"] = ir.AttrInt64("transB", int(is_transposed))
    gemm = ir.Node("", "Gemm", [left, weight, *addend], attributes=list(attributes.values()), name=product.name)
    ir.convenience.replace_nodes_and_values(graph, product, [product], [gemm], product.outputs, gemm.outputs)


def _weight_behind(value: ir.Value | None) -> tuple[ir.Value | None, bool]:
    """Return the matrix of weights behind any number of transposes, and whether they transpose it."""
    is_transposed = False
    while value is not None and not value.is_initializer():
        node = value.producer()
        if node is None or node.op_type != "Transpose" or list(node.attributes["perm"].as_ints()) != MATRIX_TRANSPOSE:
            return None, False
        is_transposed = not is_transposed
        value = node.inputs[0]
    return value, is_transposed


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _describe(model: ir.Model, signature: Signature) -> None:
    """Name the graph and its dynamic dimensions, and drop all that tells of the machine that exported it."""
    passes.ClearMetadataAndDocStringPass()(model)
    model.graph.name = signature.name
    model.producer_name = "m2ib-export"
    model.producer_version = ""
    for value, port in zip(
        [*model.graph.inputs, *model.graph.outputs], [*signature.inputs, *signature.outputs], strict=True
    ):
        value.shape = ir.Shape(port.shape)
        value.metadata_props.clear()
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None  # the exporter's names of dynamic dimensions differ from ours


def example_inputs(signature: Signature, sizes: dict[str, int]) -> tuple[Tensor, ...]:
    """Make inputs to trace with: small random numbers for floats, ones for integers."""
    source = np.random.default_rng(0)
    examples = []
    for port in signature.inputs:
        shape = tuple(sizes[size] if isinstance(size, str) else size for size in port.shape)
        if port.is_integer:
            examples.append(torch.ones(shape, dtype=torch.int64))
        else:
            examples.append(torch.from_numpy(source.standard_normal(shape, dtype=np.float32)))
    return tuple(examples)
