"""Owns how much memory a model is held to take, and whether there is room for it. Pure."""

from m2ib.v1 import manifest_pb2 as pb
from m2ib_server.errors import ModelMemoryExceeded
from m2ib_server.runtime import DeviceKind

_HEADS = frozenset({pb.GRAPH_ROLE_VISION_HEAD, pb.GRAPH_ROLE_TEXT_HEAD})
_FULL_PRECISION = "fp32"
_MARGIN_PERCENT = 20


def load_bytes(manifest: pb.Manifest, kind: DeviceKind, devices: int) -> int:
    """Estimate what a loaded model takes over all devices, in bytes, before it has answered anything.

    It follows what is known of ONNX Runtime (docs/decisions/0002, 0004). On a CPU a head and a gradient graph repack
    their weights into private copies, one on each device; the tails read the pages of their weights' file, which are
    one copy for all devices. Weights of half precision become fp32 there, twice their size, and each tail has a copy of
    its own. On a GPU every session has its own copy on the device, of the size of the file; nothing of that was run. A
    fifth comes on top for what the warm-up leaves allocated. Measured at ViT-B/32 on a CPU (bench/model_memory.py), a
    load takes 0.94 of the estimate in fp32 and 0.99 in fp16. What requests take while they run is not in it.
    """
    sizes = {packaged.name: packaged.size_bytes for packaged in manifest.files}
    heads = {graph.weights_file for graph in manifest.graphs if graph.role in _HEADS}
    tails = {graph.weights_file for graph in manifest.graphs if graph.role not in _HEADS}
    head_bytes = sum(sizes.get(name, 0) for name in heads)
    tail_bytes = sum(sizes.get(name, 0) for name in tails)
    other_bytes = sum(size for name, size in sizes.items() if name not in heads | tails)
    if kind is not DeviceKind.CPU:
        weights = devices * (head_bytes + 2 * tail_bytes)
    elif manifest.precision == _FULL_PRECISION:
        weights = devices * (head_bytes + tail_bytes) + tail_bytes
    else:
        weights = devices * 2 * (head_bytes + 2 * tail_bytes)
    return (weights + other_bytes) * (100 + _MARGIN_PERCENT) // 100


def check_room(needed: int, used: int, limit: int) -> None:
    """Refuse a model that does not fit beside those that are loaded or draining; a limit of 0 is none.

    Raises:
        ModelMemoryExceeded: naming all three.
    """
    if limit and used + needed > limit:
        raise ModelMemoryExceeded(needed=needed, used=used, limit=limit)
