"""Asks a running server for its health; loads nothing of what serving needs, so that the asking is quick."""

import ipaddress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def is_serving(address: str, service: str, timeout_seconds: float) -> bool:
    """Ask a server for the health of a service; no answer in time means no."""
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_seconds)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def dialled(listen: str) -> str:
    """Return the address under which this machine reaches a server that listens on "host:port".

    A host that stands for every interface is no place to dial; loopback is one of them.
    """
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:  # a name
        return listen
    if not address.is_unspecified:
        return listen
    return f"127.0.0.1:{port}" if address.version == 4 else f"[::1]:{port}"
