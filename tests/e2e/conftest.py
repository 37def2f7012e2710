"""The wire to the server that all tests of this folder share."""

import grpc
import pytest

from m2ib.v1 import attribution_pb2_grpc


@pytest.fixture(scope="session")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="session")
def stub(channel):
    return attribution_pb2_grpc.AttributionServiceStub(channel)
