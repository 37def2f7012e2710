"""Asks a running server for its health; loads nothing of what serving needs, so that the asking is quick."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTls:
    """What is needed to ask a server that encrypts; files in PEM.

    Attributes:
        ca: the authority of the server's certificate.
        certificate: a client certificate, where the server asks for one.
        key: its key.
        server_name: the name in the server's certificate; "" for the address.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""


def is_serving(address: str, service: str, timeout_seconds: float, tls: ProbeTls | None = None) -> bool:
    """Ask a server for the health of a service; no answer in time means no.

    Raises:
        OSError: a file of `tls` cannot be read.
    """
    with _channel(address, tls) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_seconds)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(address: str, tls: ProbeTls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(
        tls.ca.read_bytes(),
        private_key=tls.key.read_bytes() if tls.key else None,
        certificate_chain=tls.certificate.read_bytes() if tls.certificate else None,
    )
    options = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(address, credentials, options)


def dialled(listen: str) -> str:
    """Return the address under which this machine reaches a server that listens on "host:port".

    A host that stands for every interface is no place to dial; loopback is one of them.
    """
    host, _, port = listen.rpartition(":")  # of a unix socket "unix", which is a name
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:  # a name
        return listen
    if not address.is_unspecified:
        return listen
    return f"127.0.0.1:{port}" if address.version == 4 else f"[::1]:{port}"
