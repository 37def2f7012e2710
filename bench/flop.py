"""Counts the floating-point operations of a graph's matrix products and convolutions, as the file has them."""

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Feed = Mapping[str, np.ndarray[Any, Any]]
COUNTED = frozenset({"MatMul", "Gemm", "Conv"})


def count_flop(graph: Path, feed: Feed) -> int:
    """Return the operations of one run, a multiplication and an addition as two.

    The shapes are those of a run without any optimisation, in which every node is one of the file's.
    """
    return sum(_node_flop(event["args"]) for event in _node_events(graph, feed))


def _node_events(graph: Path, feed: Feed) -> list[dict[str, Any]]:
    """Run the graph once and return ONNX Runtime's record of each node that counts."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")  # repacked weights have no shape on record
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [
        event for event in events if event["name"].endswith("_kernel_time") and event["args"].get("op_name") in COUNTED
    ]


def _node_flop(record: Mapping[str, Any]) -> int:
    left, right, *_ = (_shape(port) for port in record["input_type_shape"])
    (output,) = (_shape(port) for port in record["output_type_shape"])
    if record["op_name"] == "Conv":  # right: [channels out, channels in, height, width]
        return 2 * math.prod(output) * math.prod(right[1:])
    if record["op_name"] == "Gemm":  # whichever operand is transposed, the left one has rows x inner elements
        return 2 * math.prod(output) * (math.prod(left) // output[0])
    return 2 * math.prod(output) * left[-1]


def _shape(port: Mapping[str, list[int]]) -> list[int]:
    (shape,) = port.values()
    return shape
