"""Evaluates frozen graphs with ONNX Runtime on torch tensors' own memory; the only importer of onnxruntime."""

from m2ib_server.runtime.device import Device, DeviceKind, open_device, open_devices
from m2ib_server.runtime.graph import FrozenGraph, open_graphs, software_version
from m2ib_server.runtime.heap import trim_heap

__all__ = [
    "Device",
    "DeviceKind",
    "FrozenGraph",
    "open_device",
    "open_devices",
    "open_graphs",
    "software_version",
    "trim_heap",
]
