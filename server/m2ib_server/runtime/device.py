"""Chooses execution providers and session options for a device; pure but for asking what this machine has."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum

import onnxruntime
import torch

from m2ib_server.errors import DeviceUnavailable

ProviderList = list[tuple[str, dict[str, str]]]


class DeviceKind(StrEnum):
    """What evaluates the graphs."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


PROVIDER_BY_KIND = {
    DeviceKind.CPU: "CPUExecutionProvider",
    DeviceKind.CUDA: "CUDAExecutionProvider",
    DeviceKind.TENSORRT: "TensorrtExecutionProvider",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where the mask and the graphs live.

    Attributes:
        kind: the execution provider's kind.
        torch_device: where torch keeps the mask, its noise and every bound tensor.
        threads: compute threads of ONNX Runtime, at least 1.
        providers: ONNX Runtime's providers with their options, in order of preference.
        spin_microseconds: how long ONNX Runtime's threads look out for more work before they sleep; 0 sleeps at once.
        stream: the CUDA stream that torch and ONNX Runtime share; None on a CPU.
    """

    kind: DeviceKind
    torch_device: torch.device
    threads: int
    providers: ProviderList
    spin_microseconds: int = 0
    stream: "torch.cuda.Stream | None" = None

    def in_order(self) -> AbstractContextManager[object]:
        """Keep torch on the stream that the providers were given, so that neither reads what is not written yet.

        Whoever evaluates graphs does all its torch work on this device inside.
        """
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


def open_device(kind: DeviceKind, *, threads: int, index: int = 0, spin_microseconds: int = 0) -> Device:
    """Open a device, or refuse.

    Raises:
        DeviceUnavailable: this build of ONNX Runtime lacks the provider, or torch sees no such GPU.
    """
    check_provider(kind, onnxruntime.get_available_providers())
    if kind is DeviceKind.CPU:
        return Device(
            kind=kind,
            torch_device=torch.device("cpu"),
            threads=threads,
            providers=providers_for(kind, index=index, stream=0),
            spin_microseconds=spin_microseconds,
        )
    if not torch.cuda.is_available():
        raise DeviceUnavailable(kind, seen="a torch that sees no GPU", allowed="a torch built for CUDA and a GPU")
    # ONNX Runtime takes stream 0 for "none given", so torch's default stream cannot be shared.
    stream = torch.cuda.Stream(index)  # type: ignore[no-untyped-call]
    return Device(
        kind=kind,
        torch_device=torch.device("cuda", index),
        threads=threads,
        providers=providers_for(kind, index=index, stream=stream.cuda_stream),
        spin_microseconds=spin_microseconds,
        stream=stream,
    )


def open_devices(kind: DeviceKind, *, threads: int, count: int, spin_microseconds: int = 0) -> list[Device]:
    """Open several devices: GPUs 0 to count - 1, or so many equal shares of the threads on a CPU, at least one each.

    Raises:
        DeviceUnavailable: as `open_device` does.
    """
    share = threads // count if kind is DeviceKind.CPU else threads
    return [
        open_device(kind, threads=share, index=index, spin_microseconds=spin_microseconds) for index in range(count)
    ]


def check_provider(kind: DeviceKind, available: Sequence[str]) -> None:
    """Refuse a device whose provider is not among those available.

    Raises:
        DeviceUnavailable: naming the providers seen and the one needed.
    """
    if PROVIDER_BY_KIND[kind] not in available:
        raise DeviceUnavailable(kind, seen=", ".join(available) or "none", allowed=PROVIDER_BY_KIND[kind])


def providers_for(kind: DeviceKind, *, index: int, stream: int) -> ProviderList:
    """Return the providers with their options; each falls back, node by node, to the next one.

    `stream` is the address of a CUDA stream, so that graphs run in order with torch's own work on it.
    """
    cpu: ProviderList = [(PROVIDER_BY_KIND[DeviceKind.CPU], {})]
    gpu_options = {"device_id": str(index), "user_compute_stream": str(stream)}
    if kind is DeviceKind.CPU:
        return cpu
    cuda: ProviderList = [(PROVIDER_BY_KIND[DeviceKind.CUDA], gpu_options)]
    if kind is DeviceKind.CUDA:
        return cuda + cpu
    return [(PROVIDER_BY_KIND[DeviceKind.TENSORRT], gpu_options), *cuda, *cpu]


def session_options(device: Device, *, is_repacked: bool) -> onnxruntime.SessionOptions:
    """Return options for a session on a device: one pool of its threads, which spin for its time and then sleep.

    is_repacked: whether the session repacks its weights into a private copy, which is faster; otherwise it reads them
    from the weights file's pages, which are one copy for whoever maps the file (docs/decisions/0002).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if device.spin_microseconds else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(device.spin_microseconds))
    options.add_session_config_entry("session.disable_prepacking", "0" if is_repacked else "1")
    return options


def run_options(device: Device, *, shrinks: bool) -> onnxruntime.RunOptions:
    """Return options for a call; with `shrinks` the memory that it and calls before it took is given back after it."""
    options = onnxruntime.RunOptions()
    if shrinks:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas(device))
    return options


def arenas(device: Device) -> str:
    """Name the arenas that a device's sessions allocate from."""
    if device.kind is DeviceKind.CPU:
        return "cpu:0"
    return f"cpu:0;gpu:{device.torch_device.index or 0}"
