"""Times one optimisation step's gradient graph against eager PyTorch on the same machine, in one run.

Run as `PYTHONPATH=tests python bench/step.py`. The contenders take turns, so that a busy machine
slows all of them alike: read the ratios, not the milliseconds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import torch
from torch import Tensor, nn

from checkpoints import PRESETS, write_checkpoint
from m2ib.v1 import manifest_pb2 as pb
from m2ib_export.families import OriginalModel, load_original
from m2ib_export.geometry import Layers, VisionGeometry, resolve_layers
from m2ib_export.gradient import similarity_and_gradient, trace_gradient
from m2ib_export.graph import example_inputs, to_graph, write_graph
from m2ib_export.signature import BATCH, TOKENS, signatures
from m2ib_export.weights import WeightsFile

Step = Callable[[], object]


def main() -> None:
    """Export the gradient graph of a random model, time the contenders and print the table."""
    options = _parse()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        original = load_original("clip", write_checkpoint(directory / "checkpoint", options.preset))
        layers = resolve_layers(original.geometry, vision=None, text=None)
        tail = original.split(layers).vision_tail
        graph = _export_gradient(original, tail, directory)
        contenders = _contenders(original, layers, tail, graph, options)
        seconds = _take_turns(contenders, options.rounds)
    _report(seconds, original.geometry.vision, layers, options.rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="vit-b-32")
    parser.add_argument("--rows", type=int, default=10, help="noise rows of the step")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def _export_gradient(original: OriginalModel, tail: nn.Module, directory: Path) -> Path:
    signature = signatures(original.geometry)[pb.GRAPH_ROLE_VISION_TAIL_GRAD]
    example = example_inputs(signature, {BATCH: 3, TOKENS: 7})
    model = to_graph(trace_gradient(tail, example), example, signature, max_tokens=77)
    with WeightsFile(directory / signature.weights_file) as weights:
        weights.take(model.graph)
    write_graph(model, directory / signature.file)
    return directory / signature.file


def _contenders(
    original: OriginalModel, layers: Layers, tail: nn.Module, graph: Path, options: argparse.Namespace
) -> dict[str, Step]:
    signature = signatures(original.geometry)[pb.GRAPH_ROLE_VISION_TAIL_GRAD]
    features, target = example_inputs(signature, {BATCH: options.rows})
    feed = {"features": features.numpy(), "target": target.numpy()}
    session = _session(graph, options.threads, is_packing=True)
    unpacked = _session(graph, options.threads, is_packing=False)

    def whole_tail(rows: Tensor) -> Tensor:
        return original.image_tail(rows, layers.vision)

    return {
        "gradient graph": lambda: session.run(None, feed),
        "gradient graph, weights not prepacked": lambda: unpacked.run(None, feed),
        "eager PyTorch, pruned": lambda: similarity_and_gradient(tail, features, target),
        "eager PyTorch, unpruned": lambda: similarity_and_gradient(whole_tail, features, target),
        "one product of the first projection's shape": _product(original.geometry.vision, options.rows),
    }


def _session(graph: Path, threads: int, *, is_packing: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.disable_prepacking", "0" if is_packing else "1")
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _product(vision: VisionGeometry, rows: int) -> Step:
    left = torch.randn(rows * vision.tokens, vision.width)
    right = torch.randn(vision.width, 4 * vision.width)
    return lambda: left @ right


def _take_turns(contenders: dict[str, Step], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, step in contenders.items():
            started = time.perf_counter()
            step()
            if turn >= 2:  # the first turns fill caches
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def _report(seconds: dict[str, float], vision: VisionGeometry, layers: Layers, rows: int) -> None:
    product_flop = 2 * rows * vision.tokens * 4 * vision.width**2
    *steps, product = seconds
    rate = product_flop / seconds[product]
    limit = _step_flop(vision, layers, rows) / rate
    print(f"rate of one product: {rate / 1e9:.0f} GFLOP/s; the step's products at that rate: {limit * 1e3:.0f} ms")
    for name in steps:
        ratio = seconds[name] / seconds[steps[0]]
        share = limit / seconds[name]
        print(f"{name:40} {seconds[name] * 1e3:7.1f} ms  {ratio:5.2f} of the graph  {share:5.0%} of the rate")


def _step_flop(vision: VisionGeometry, layers: Layers, rows: int) -> float:
    """Products of forward and backward pass: whole blocks but the last, which has the pooled token's products only."""
    whole_blocks = vision.depth - layers.vision - 2
    width, tokens = vision.width, vision.tokens
    whole = 12 * width**2 * tokens + 2 * tokens**2 * width
    pooled = 12 * width**2
    return 2 * 2 * rows * (whole_blocks * whole + pooled)


if __name__ == "__main__":
    main()
