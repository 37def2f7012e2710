"""The wire to the servers that all tests of this folder share."""

import grpc
import pytest

from m2ib.v1 import attribution_pb2_grpc
from serving import running_server


@pytest.fixture(scope="session")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="session")
def stub(channel):
    return attribution_pb2_grpc.AttributionServiceStub(channel)


@pytest.fixture(scope="session")
def narrow_server(tiny_package, tmp_path_factory):
    """A server with limits so small that hostile requests soon cross each of them and none lasts long."""
    flags = {
        "--max-steps": 20,
        "--max-samples": 64,
        "--max-message-mebibytes": 4,
        "--max-image-mebibytes": 3,
        "--max-image-megapixels": 2,
        "--max-text-characters": 2000,
        "--max-score-images": 8,
        "--max-score-texts": 16,
        "--upload-mebibytes": 64,
    }
    arguments = [str(part) for flag in flags.items() for part in flag]
    with running_server(tiny_package, tmp_path_factory.mktemp("narrow"), *arguments) as running:
        yield running


@pytest.fixture(scope="session")
def narrow_channel(narrow_server):
    with grpc.insecure_channel(narrow_server.address) as channel:
        yield channel
