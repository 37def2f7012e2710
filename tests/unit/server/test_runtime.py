import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import json_format

from m2ib.v1 import manifest_pb2
from m2ib_server.errors import DeviceUnavailable, EvaluationAborted, EvaluationFailed, PackageCorrupt
from m2ib_server.package import Role, open_package
from m2ib_server.package.store import sha256_of
from m2ib_server.runtime import DeviceKind, open_device, open_graphs, trim_heap
from m2ib_server.runtime.device import (
    PROVIDER_BY_KIND,
    Device,
    arenas,
    check_provider,
    open_devices,
    providers_for,
    session_options,
)
from m2ib_server.runtime.graph import HOLD_SECONDS, Peak, file_for


@pytest.fixture(scope="module")
def device():
    return open_device(DeviceKind.CPU, threads=2)


@pytest.fixture(scope="module")
def graphs(tiny_package, device):
    return open_graphs(open_package(tiny_package), device)


def test_every_kind_of_device_has_a_provider():
    assert set(PROVIDER_BY_KIND) == set(DeviceKind)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (DeviceKind.CPU, ["CPUExecutionProvider"]),
        (DeviceKind.CUDA, ["CUDAExecutionProvider", "CPUExecutionProvider"]),
        (
            DeviceKind.TENSORRT,
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
        ),
    ],
)
def test_providers_come_in_order_of_preference(kind, names):
    assert [name for name, _ in providers_for(kind, index=1, stream=77)] == names


def test_gpu_providers_run_on_the_device_and_stream_of_torch():
    for name, options in providers_for(DeviceKind.TENSORRT, index=1, stream=77):
        expected = {} if name == "CPUExecutionProvider" else {"device_id": "1", "user_compute_stream": "77"}
        assert options == expected


def test_a_provider_that_is_not_built_in_is_refused_with_what_was_seen():
    with pytest.raises(DeviceUnavailable, match=r"CPUExecutionProvider.*CUDAExecutionProvider"):
        check_provider(DeviceKind.CUDA, ["CPUExecutionProvider"])


def test_session_pools_are_bounded_and_do_not_spin():
    options = session_options(open_device(DeviceKind.CPU, threads=3), is_repacked=True)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_session_pools_spin_no_longer_than_they_are_told_to():
    (device,) = open_devices(DeviceKind.CPU, threads=2, count=1, spin_microseconds=20)
    options = session_options(device, is_repacked=True)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.intra_op.spin_duration_us") == "20"


@pytest.mark.parametrize(
    ("portable", "kind", "file"),
    [
        ("", DeviceKind.CPU, "half.onnx"),
        ("portable.onnx", DeviceKind.CPU, "portable.onnx"),
        ("portable.onnx", DeviceKind.CUDA, "half.onnx"),
        ("portable.onnx", DeviceKind.TENSORRT, "half.onnx"),
    ],
)
def test_a_cpu_takes_the_portable_file_of_a_graph_that_has_one(portable, kind, file):
    assert file_for(manifest_pb2.Graph(file="half.onnx", portable_file=portable), kind) == file


def test_a_graph_runs_on_torch_tensors_of_any_batch(graphs):
    head, tail = graphs[Role.VISION_HEAD], graphs[Role.VISION_TAIL]
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    (features,) = head.run({"pixel_values": pixels})
    (embeddings,) = tail.run({"features": features})
    for row in range(5):
        (alone,) = head.run({"pixel_values": pixels[row : row + 1]})
        torch.testing.assert_close(alone[0], features[row], rtol=1e-4, atol=1e-5)
    assert embeddings.shape == (5, 16)


def test_outputs_are_memory_of_their_own(graphs):
    head = graphs[Role.VISION_HEAD]
    first = head.run({"pixel_values": torch.zeros(1, 3, 32, 32)})[0]
    kept = first.clone()
    head.run({"pixel_values": torch.ones(1, 3, 32, 32)})
    assert torch.equal(first, kept)


def test_inputs_that_want_a_gradient_or_are_not_contiguous_are_taken(graphs):
    pixels = torch.randn(1, 32, 32, 3, requires_grad=True).permute(0, 3, 1, 2)
    (features,) = graphs[Role.VISION_HEAD].run({"pixel_values": pixels})
    (again,) = graphs[Role.VISION_HEAD].run({"pixel_values": pixels.detach().contiguous()})
    assert torch.equal(features, again)
    assert not features.requires_grad


def test_inputs_are_bound_and_not_copied(graphs, monkeypatch):
    seen = []
    real = onnxruntime.OrtValue.from_dlpack

    def watched(tensor):
        value = real(tensor)
        seen.append((tensor.data_ptr(), value.data_ptr()))
        return value

    monkeypatch.setattr(onnxruntime.OrtValue, "from_dlpack", watched)
    features = torch.randn(2, 17, 32)
    graphs[Role.VISION_TAIL].run({"features": features})
    assert seen == [(features.data_ptr(), features.data_ptr())]


def mappings_of(name):
    """Sum over this process's mappings of a file: bytes mapped, bytes of private copies."""
    mapped = copied = 0
    is_ours = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_ours = line.endswith(name)
        elif is_ours and line.startswith("Size:"):
            mapped += int(line.split()[1]) * 1024
        elif is_ours and line.startswith("Private_Dirty:"):
            copied += int(line.split()[1]) * 1024
    return mapped, copied


@pytest.mark.parametrize("side", ["vision", "text"])
def test_a_tail_reads_the_shared_weights_from_the_files_pages(tiny_package, tmp_path, device, side):
    folder = shutil.copytree(tiny_package, tmp_path / "sharing")
    package = open_package(folder)
    names = {package.graph(Role[f"{side}_{part}".upper()]).weights_file for part in ("tail", "tail_grad")}
    assert names == {f"{side}_tail.weights"}
    size = (folder / f"{side}_tail.weights").stat().st_size
    graphs = open_graphs(package, device)
    mapped, copied = mappings_of(str(folder / f"{side}_tail.weights"))
    assert mapped >= 0.9 * size  # all but a few small weights, which ONNX Runtime copies
    assert copied == 0
    assert len(graphs) == 6


def test_nothing_is_reported_to_anyone(tiny_package, tmp_path):
    code = (
        "import sys; from pathlib import Path; from m2ib_server.runtime import *; from m2ib_server.package import *;"
        "open_graphs(open_package(Path(sys.argv[1])), open_device(DeviceKind.CPU, threads=1))"
    )
    environment = {**os.environ, "HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "XDG_DATA_HOME": "/proc/none"}
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_package], capture_output=True, text=True, check=True, env=environment
    )
    assert "telemetry" not in done.stderr


def test_a_failing_evaluation_says_nothing_of_its_values(graphs):
    ids = torch.full((1, 4), 10**6, dtype=torch.int64)  # beyond the vocabulary
    with pytest.raises(EvaluationFailed) as caught:
        graphs[Role.TEXT_HEAD].run({"token_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert str(10**6) not in str(caught.value)


def test_an_evaluation_is_ended_from_another_thread_and_the_graph_works_on(graphs):
    head = graphs[Role.VISION_HEAD]
    pixels = torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    (before,) = head.run({"pixel_values": pixels})
    is_over = threading.Event()

    def abort_again_and_again():
        while not is_over.wait(0.001):  # between two runs there is nothing to end
            head.abort()

    aborting = threading.Thread(target=abort_again_and_again)
    aborting.start()
    try:
        with pytest.raises(EvaluationAborted):
            for _ in range(1000):
                head.run({"pixel_values": pixels})
    finally:
        is_over.set()
        aborting.join()
    (after,) = head.run({"pixel_values": pixels})
    assert torch.equal(before, after)


def changed(package, tmp_path, change):
    """A package with another manifest, digests right again."""
    copy = shutil.copytree(package, tmp_path / "copy")
    manifest = json_format.Parse((copy / "manifest.json").read_text(), manifest_pb2.Manifest())
    change(copy, manifest)
    for packaged in manifest.files:
        packaged.sha256 = sha256_of(copy / packaged.name)
        packaged.size_bytes = (copy / packaged.name).stat().st_size
    (copy / "manifest.json").write_text(json_format.MessageToJson(manifest))
    return open_package(copy)


def test_a_signature_that_differs_from_the_graphs_is_refused_by_the_graphs_name(tiny_package, tmp_path, device):
    def widen(folder, manifest):
        graph = next(graph for graph in manifest.graphs if graph.file == "vision_tail.onnx")
        graph.outputs[0].shape[1] += 1

    with pytest.raises(PackageCorrupt, match=r"vision_tail\.onnx: seen outputs"):
        open_graphs(changed(tiny_package, tmp_path, widen), device)


def test_a_file_that_is_no_graph_is_refused_by_its_name(tiny_package, tmp_path, device):
    package = changed(tiny_package, tmp_path, lambda folder, _: (folder / "text_head.onnx").write_bytes(b"nonsense"))
    with pytest.raises(PackageCorrupt, match=r"text_head\.onnx"):
        open_graphs(package, device)


def test_the_gradient_graph_returns_the_gradient_of_each_rows_own_similarity(graphs):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(4, 17, 32, generator=generator)
    target = torch.nn.functional.normalize(torch.randn(4, 16, generator=generator), dim=-1)
    similarity, gradient = graphs[Role.VISION_TAIL_GRAD].run({"features": features, "target": target})
    step = 1e-2 * torch.randn(4, 17, 32, generator=generator)
    ahead, _ = graphs[Role.VISION_TAIL_GRAD].run({"features": features + step, "target": target})
    behind, _ = graphs[Role.VISION_TAIL_GRAD].run({"features": features - step, "target": target})
    predicted = 2 * (gradient * step).sum(dim=(1, 2))
    np.testing.assert_allclose((ahead - behind).numpy(), predicted.numpy(), rtol=0.05, atol=1e-5)
    assert similarity.abs().max() <= 1


def test_only_the_runtime_room_needs_onnxruntime():
    code = (
        "import sys, m2ib_server.methods, m2ib_server.imaging, m2ib_server.text; sys.exit('onnxruntime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("threads", "count", "share"), [(2, 1, 2), (2, 2, 1), (8, 3, 2), (4, 4, 1)])
def test_devices_on_a_cpu_share_its_threads(threads, count, share):
    devices = open_devices(DeviceKind.CPU, threads=threads, count=count)
    assert [device.threads for device in devices] == [share] * count


def test_the_arenas_of_a_device_are_named_as_onnx_runtime_does():
    gpu = Device(kind=DeviceKind.CUDA, torch_device=torch.device("cuda", 1), threads=1, providers=[])
    assert arenas(gpu) == "cpu:0;gpu:1"
    assert arenas(open_device(DeviceKind.CPU, threads=1)) == "cpu:0"


def test_a_peak_is_held_for_a_while_and_then_passes():
    peak = Peak()
    assert not peak.passes(100, 0.0)
    assert not peak.passes(10, HOLD_SECONDS)
    assert not peak.passes(60, HOLD_SECONDS + 1)  # not much smaller: what is held is of use
    assert peak.passes(50, HOLD_SECONDS + 1)
    assert not peak.passes(50, HOLD_SECONDS + 2)


def test_a_burst_of_large_batches_does_not_keep_its_memory(demo_package, device):
    def resident_bytes():
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    graphs = open_graphs(open_package(demo_package), device)
    signature = graphs[Role.VISION_TAIL_GRAD].signature
    for graph in graphs.values():
        graph.trim()  # nothing has run: nothing to give back
    before = resident_bytes()
    burst = {port.name: torch.randn(512, *port.shape[1:]) for port in signature.inputs}
    graphs[Role.VISION_TAIL_GRAD].run(burst)
    grown = resident_bytes() - before
    assert grown > 100 << 20
    for graph in graphs.values():
        graph.trim()
    del burst
    assert resident_bytes() - before < grown / 2


def test_every_graph_can_be_trimmed_after_it_ran(graphs):
    for graph in graphs.values():
        kinds = {manifest_pb2.ELEMENT_TYPE_FLOAT32: torch.float32, manifest_pb2.ELEMENT_TYPE_INT64: torch.int64}
        inputs = {}
        for port in graph.signature.inputs:
            sizes = iter((3, 4, 4))
            shape = [size or next(sizes) for size in port.shape]
            inputs[port.name] = torch.ones(shape, dtype=kinds[port.element_type])
        before = graph.run(inputs)
        graph.trim()
        for first, second in zip(before, graph.run(inputs), strict=True):
            assert torch.equal(first, second)


def test_the_heap_gives_back_what_is_free():
    def resident_bytes():
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    kept = []
    small = [bytearray(60_000) for _ in range(2000)]  # below what the C library maps on its own
    kept.append(bytearray(60_000))  # at the heap's end: nothing before it is given back by itself
    grown = resident_bytes()
    small.clear()
    trim_heap()
    assert grown - resident_bytes() > 50 << 20
    assert kept
