"""Calls about one image stay on one server: through Envoy with docs/deploy's routes, and by gRPC's own ring."""

import collections
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from m2ib.v1 import attribution_pb2_grpc
from m2ib_client import Client
from m2ib_client._affinity import HEADER
from m2ib_client.testing import FakeService

ROOT = Path(__file__).parents[2]
ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
IMAGES, TEXTS = 12, ("a cat", "a dog", "two birds")


@contextmanager
def healthy_fake():
    """A fake that answers health checks too."""
    fake = FakeService()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    attribution_pb2_grpc.add_AttributionServiceServicer_to_server(fake, server)
    status = health.HealthServicer()
    status.set("m2ib.v1.AttributionService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(grace=None).wait()


@pytest.fixture
def fakes():
    with healthy_fake() as first, healthy_fake() as second:
        yield first, second


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def adapted(fakes, port):
    """Return docs/deploy's configuration for this machine: without TLS, before these fakes, without an admin port."""
    configuration = yaml.safe_load((ROOT / "docs/deploy/envoy/envoy.yaml").read_text())
    del configuration["admin"]
    (listener,) = configuration["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    del listener["filter_chains"][0]["transport_socket"]
    (cluster,) = configuration["static_resources"]["clusters"]
    del cluster["transport_socket"]
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [_endpoint(fake.address) for fake in fakes]}]
    return configuration


def _endpoint(address):
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


@pytest.fixture
def proxy(fakes, tmp_path):
    port = free_port()
    (tmp_path / "envoy.json").write_text(json.dumps(adapted(fakes, port)))
    command = [ENVOY, "--config-path", tmp_path / "envoy.json", "--use-dynamic-base-id", "--concurrency", "1"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--log-level", "error"], stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def until_up(client):
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.models(timeout=10)
        except Exception:
            assert time.monotonic() < deadline, "Envoy is not up in time"
            time.sleep(0.1)


def servers_by_image(fakes):
    """Return for each digest which of the servers got calls about it, and how many."""
    seen = collections.defaultdict(collections.Counter)
    for number, fake in enumerate(fakes):
        for call in fake.calls:
            if HEADER in call.metadata:
                seen[call.metadata[HEADER]][number] += 1
    return seen


def pictures():
    noise = np.random.default_rng(0)
    return [noise.integers(0, 255, (16, 16), dtype=np.uint8) for _ in range(IMAGES)]


@pytest.mark.skipif(ENVOY is None, reason="envoy is not installed")
def test_envoy_keeps_calls_about_one_image_on_one_server(proxy, fakes):
    with Client(proxy) as client:
        until_up(client)
        for image in pictures():
            handle = client.upload(image)
            for text in TEXTS:
                client.explain(image, text)
                client.explain(handle, text)
        repeated = [(image, text) for image in pictures()[:3] for text in TEXTS]
        results = list(client.explain_many(repeated))
    seen = servers_by_image(fakes)
    assert len(seen) == IMAGES
    assert all(len(servers) == 1 for servers in seen.values())
    assert {server for servers in seen.values() for server in servers} == {0, 1}
    assert [result.error for result in results] == [None] * len(repeated)


RINGED = """
import json, sys, grpc
from m2ib.v1 import attribution_pb2 as pb, attribution_pb2_grpc
config = {"loadBalancingConfig": [{"ring_hash_experimental": {"requestHashHeader": "x-affinity"}}]}
with grpc.insecure_channel("ipv4:" + sys.argv[1], [("grpc.service_config", json.dumps(config))]) as channel:
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    for key in range(12):
        for _ in range(3):
            stub.ListModels(pb.ListModelsRequest(), metadata=[("x-affinity", f"{key:064x}")], timeout=60)
"""


def test_a_c_core_client_keeps_keys_on_servers_by_its_own_ring(fakes):
    variables = {**os.environ, "GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY": "true"}
    addresses = ",".join(fake.address for fake in fakes)
    command = [sys.executable, "-c", RINGED, addresses]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen = servers_by_image(fakes)
    assert len(seen) == 12
    assert all(list(servers.values()) == [3] for servers in seen.values())
    assert {server for servers in seen.values() for server in servers} == {0, 1}
