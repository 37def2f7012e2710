"""Holds each graph of a package against the machine's own matrix-multiply rate, measured in the same run.

Run as `PYTHONPATH=tests python bench/roofline.py`.
"""

import argparse
import dataclasses
import functools
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from torch import Tensor

from flop import count_flop
from inputs import draw_inputs
from m2ib_server.package import ModelPackage, Role, open_package
from m2ib_server.runtime import Device, DeviceKind, FrozenGraph, open_device, open_graphs
from m2ib_server.runtime.device import session_options
from report import Report, Value
from subject import TEXT, add_arguments, prepare
from turns import Contender, take_turns

STEP = Role.VISION_TAIL_GRAD
STEP_UNPACKED = "vision_tail_grad, weights not repacked"
STEP_SPINNING = "vision_tail_grad, threads spin for 20 us"
STEP_IN_PARTS = "vision_tail_grad, a part of the rows on each thread"
SPIN_MICROSECONDS = 20
SQUARE = 2048
Inputs = dict[str, Tensor]


def main() -> None:
    """Run every graph and the plain products by turns, and report the share that each graph achieves."""
    options = _parse()
    torch.set_num_threads(options.threads)
    subject = prepare(options.packages, options.preset)
    package = open_package(subject.package)
    tokens = len(Tokenizer.from_file(str(subject.checkpoint / "tokenizer.json")).encode(TEXT).ids)
    inputs = {role: draw_inputs(package.graph(role), _rows(role, options.rows), tokens) for role in Role}
    flop = _count(package, inputs)
    device = open_device(DeviceKind.CPU, threads=options.threads)
    products, product_flop = _products(package, options.rows, device)
    graphs = _graphs(package, device, inputs)
    seconds = take_turns({**graphs, **products}, rounds=options.rounds, warm_up=2)
    rate = max(work / statistics.median(seconds[name]) for name, work in product_flop.items())
    report = Report(
        name="roofline",
        title="Each graph against the machine's matrix-multiply rate",
        settings={
            "model": subject.preset,
            "rows of a step": options.rows,
            "tokens": tokens,
            "threads": options.threads,
        },
        seconds=seconds,
        baseline=_name(STEP),
        rows=_shares(seconds, flop | product_flop, rate),
        findings={"matrix-multiply rate, GFLOP/s": rate / 1e9},
    )
    report.write(options.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--rows", type=int, default=10, help="noise rows of a step")
    parser.add_argument("--rounds", type=int, default=20)
    return parser.parse_args()


def _name(role: Role) -> str:
    return role.name.lower()


def _rows(role: Role, step_rows: int) -> int:
    """A gradient runs on all noise rows, everything else on one image or text."""
    return step_rows if role in (Role.VISION_TAIL_GRAD, Role.TEXT_TAIL_GRAD) else 1


def _count(package: ModelPackage, inputs: Mapping[Role, Inputs]) -> dict[str, int]:
    flop = {}
    for role in Role:
        feed = {name: tensor.numpy() for name, tensor in inputs[role].items()}
        flop[_name(role)] = count_flop(package.path(package.graph(role).file), feed)
    return flop | dict.fromkeys((STEP_UNPACKED, STEP_SPINNING, STEP_IN_PARTS), flop[_name(STEP)])


def _graphs(package: ModelPackage, device: Device, inputs: Mapping[Role, Inputs]) -> dict[str, Contender]:
    """Open every graph as the server does by default, and the step's in the three ways that it does not."""
    opened = {_name(role): (role, graph) for role, graph in open_graphs(package, device).items()}
    spinning = dataclasses.replace(device, spin_microseconds=SPIN_MICROSECONDS)
    opened[STEP_UNPACKED] = STEP, _step(package, device, is_repacked=False)
    opened[STEP_SPINNING] = STEP, _step(package, spinning, is_repacked=True)
    contenders = {name: functools.partial(graph.run, inputs[role]) for name, (role, graph) in opened.items()}
    return {**contenders, STEP_IN_PARTS: _in_parts(package, device, inputs[STEP])}


def _step(package: ModelPackage, device: Device, *, is_repacked: bool) -> FrozenGraph:
    path = package.path(package.graph(STEP).file)
    options = session_options(device, is_repacked=is_repacked)
    session = onnxruntime.InferenceSession(str(path), options, providers=device.providers)
    return FrozenGraph(session, package.graph(STEP), device)


def _in_parts(package: ModelPackage, device: Device, inputs: Inputs) -> Contender:
    """Return a run of the step's graph in as many calls side by side as there are threads, each on a thread alone."""
    graph = _step(package, dataclasses.replace(device, threads=1), is_repacked=True)
    pool = ThreadPoolExecutor(device.threads)
    cut = {name: tensor.tensor_split(device.threads) for name, tensor in inputs.items()}
    parts = [dict(zip(cut, tensors, strict=True)) for tensors in zip(*cut.values(), strict=True)]
    return lambda: list(pool.map(graph.run, parts))


def _products(package: ModelPackage, rows: int, device: Device) -> tuple[dict[str, Contender], dict[str, int]]:
    """Plain products, of torch and of ONNX Runtime: large square ones, and of the shape of a step's widest layer."""
    features = next(port for port in package.graph(STEP).inputs if port.name == "features")
    _, tokens, width = features.shape
    contenders: dict[str, Contender] = {}
    flop: dict[str, int] = {}
    for height, inner, breadth in ((SQUARE, SQUARE, SQUARE), (rows * tokens, width, 4 * width)):
        left, right = torch.randn(height, inner), torch.randn(inner, breadth)
        session = _product_session(right, device)
        shape = f"{height} x {inner} x {breadth}"
        contenders[f"product {shape}, torch"] = functools.partial(torch.mm, left, right)
        contenders[f"product {shape}, ONNX Runtime"] = functools.partial(session.run, None, {"left": left.numpy()})
        flop |= dict.fromkeys(list(contenders)[-2:], 2 * height * inner * breadth)
    return contenders, flop


def _product_session(right: Tensor, device: Device) -> onnxruntime.InferenceSession:
    """A graph of one product by constant weights, run with the server's options."""
    port = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["product"])],
        "product",
        [port("left", shape=[None, right.shape[0]])],
        [port("product", shape=[None, right.shape[1]])],
        [numpy_helper.from_array(right.numpy(), "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = session_options(device, is_repacked=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=device.providers)


def _shares(
    seconds: Mapping[str, Sequence[float]], flop: Mapping[str, int], rate: float
) -> dict[str, dict[str, Value]]:
    rows: dict[str, dict[str, Value]] = {}
    for name, taken in seconds.items():
        achieved = flop[name] / statistics.median(taken)
        rows[name] = {
            "GFLOP": flop[name] / 1e9,
            "GFLOP/s": achieved / 1e9,
            "share of the rate": f"{achieved / rate:.0%}",
        }
    return rows


if __name__ == "__main__":
    main()
