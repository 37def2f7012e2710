"""Evaluates one frozen graph on torch tensors' own memory: inputs are bound, outputs wrapped, nothing is copied."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import onnxruntime
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from m2ib.v1 import manifest_pb2 as pb
from m2ib_server.errors import DeviceUnavailable, EvaluationAborted, EvaluationFailed, PackageCorrupt
from m2ib_server.package import ModelPackage, Role
from m2ib_server.runtime.device import PROVIDER_BY_KIND, Device, DeviceKind, run_options, session_options

ORT_TYPE = {pb.ELEMENT_TYPE_FLOAT32: "tensor(float)", pb.ELEMENT_TYPE_INT64: "tensor(int64)"}
TORCH_TYPE = {pb.ELEMENT_TYPE_FLOAT32: torch.float32, pb.ELEMENT_TYPE_INT64: torch.int64}

# The tails run once per image or text and share their weights with the gradient graphs, which run every step.
RARE = frozenset({pb.GRAPH_ROLE_VISION_TAIL, pb.GRAPH_ROLE_TEXT_TAIL})


HOLD_SECONDS = 10.0  # how long memory for a large batch is held for the next one


class FrozenGraph:
    """A graph of a package, loaded on a device."""

    def __init__(self, session: onnxruntime.InferenceSession, signature: pb.Graph, device: Device) -> None:
        """Wrap a session whose signature has been checked."""
        self.signature = signature
        self._session = session
        self._device = device
        self._outputs = [port.name for port in signature.outputs]
        self._peak = Peak()
        self._under_way: onnxruntime.RunOptions | None = None

    def run(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Evaluate the graph. The caller is inside the device's `in_order`.

        Args:
            inputs: one tensor for each input port, of the port's type; one that is elsewhere is copied to the device.

        Returns:
            One tensor for each output port, in order, on the same device.

        Raises:
            EvaluationFailed: ONNX Runtime refused or failed; its own text stays in the exception's cause.
            EvaluationAborted: `abort` was called meanwhile.
        """
        bound = {port.name: _checked(inputs[port.name], port, self._device) for port in self.signature.inputs}
        size = sum(tensor.numel() for tensor in bound.values())
        return self._run(bound, shrinks=self._peak.passes(size, time.monotonic()))

    def trim(self) -> None:
        """Give back the memory that large batches took: the arena shrinks at the end of a call of one row."""
        if self._peak.size:
            self._run({port.name: _smallest(port, self._device) for port in self.signature.inputs}, shrinks=True)
            self._peak = Peak()

    def abort(self) -> None:
        """Let the evaluation that is under way, if one is, end at its next node; any thread may call this.

        A node that never returns is not ended by it.
        """
        if (options := self._under_way) is not None:
            options.terminate = True

    def _run(self, bound: Mapping[str, Tensor], *, shrinks: bool) -> tuple[Tensor, ...]:
        binding = self._session.io_binding()
        for name, tensor in bound.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.from_dlpack(tensor))
        where = self._device.torch_device
        for name in self._outputs:
            binding.bind_output(name, where.type, where.index or 0)
        options = self._under_way = run_options(self._device, shrinks=shrinks)
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:
            raise (EvaluationAborted if options.terminate else EvaluationFailed) from error
        finally:
            self._under_way = None
        return tuple(from_dlpack(value) for value in binding.get_outputs())


@dataclass(slots=True)
class Peak:
    """The largest batch lately, whose memory the arena holds. `size` counts elements, `seconds` the monotonic clock."""

    size: int = 0
    seconds: float = 0.0

    def passes(self, size: int, now: float) -> bool:
        """Take note of a batch; return whether the peak is so long past and so much larger that its memory may go."""
        is_past = 2 * size <= self.size and now - self.seconds > HOLD_SECONDS
        if is_past or size >= self.size:
            self.size, self.seconds = size, now
        return is_past


def open_graphs(package: ModelPackage, device: Device) -> dict[Role, FrozenGraph]:
    """Load a package's graphs and hold each against the signature in the manifest.

    Raises:
        PackageCorrupt: a graph cannot be loaded or has another signature.
        DeviceUnavailable: ONNX Runtime did not take the provider that was asked for.
    """
    return {role: _open(package, package.graph(role), device) for role in Role}


def software_version(distribution: str) -> str:
    """Return an installed distribution's version, or "" where it goes by another name here."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _open(package: ModelPackage, graph: pb.Graph, device: Device) -> FrozenGraph:
    path = package.path(file_for(graph, device.kind))
    try:
        options = session_options(device, is_repacked=graph.role not in RARE)
        session = onnxruntime.InferenceSession(str(path), options, providers=device.providers)
    except Exception as error:
        raise PackageCorrupt(str(path), seen="no loadable graph", allowed="an ONNX graph") from error
    if (wanted := PROVIDER_BY_KIND[device.kind]) not in session.get_providers():
        raise DeviceUnavailable(device.kind, seen=", ".join(session.get_providers()), allowed=wanted)
    for kind, ports, nodes in (
        ("inputs", graph.inputs, session.get_inputs()),
        ("outputs", graph.outputs, session.get_outputs()),
    ):
        _check_ports(str(path), kind, list(ports), nodes)
    return FrozenGraph(session, graph, device)


def file_for(graph: pb.Graph, kind: DeviceKind) -> str:
    """Return the file of a graph to load on a kind of device: CPUs have no products in half precision."""
    return graph.portable_file if kind is DeviceKind.CPU and graph.portable_file else graph.file


def _check_ports(path: str, kind: str, ports: list[pb.Port], nodes: list[onnxruntime.NodeArg]) -> None:
    allowed = [(port.name, ORT_TYPE.get(port.element_type, "?"), list(port.shape)) for port in ports]
    seen = [(node.name, node.type, [size if isinstance(size, int) else 0 for size in node.shape]) for node in nodes]
    if seen != allowed:
        raise PackageCorrupt(path, seen=f"{kind} {seen}", allowed=f"{kind} {allowed}")


def _smallest(port: pb.Port, device: Device) -> Tensor:
    """Return an input of one row, two tokens where their number is free, that every graph takes."""
    free = iter((1, 2, 2))
    shape = [size or next(free) for size in port.shape]
    return torch.ones(shape, dtype=TORCH_TYPE[port.element_type], device=device.torch_device)


def _checked(tensor: Tensor, port: pb.Port, device: Device) -> Tensor:
    """Hold a tensor against a port: a mistake here is ours, not the caller's."""
    sizes = [allowed or seen for allowed, seen in zip(port.shape, tensor.shape, strict=True)]
    assert list(tensor.shape) == sizes, (port.name, tensor.shape)
    assert tensor.dtype == TORCH_TYPE[port.element_type], (port.name, tensor.dtype)
    return tensor.detach().to(device.torch_device).contiguous()
