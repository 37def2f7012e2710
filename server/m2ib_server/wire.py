"""Owns what is on the wire: the gRPC servers, the services on each, channel options, the addresses that they take."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from m2ib.oip import inference_pb2, inference_pb2_grpc
from m2ib.v1 import attribution_pb2, attribution_pb2_grpc, model_repository_pb2, model_repository_pb2_grpc
from m2ib_server.access.address import UNIX
from m2ib_server.access.doors import SCOPES, Doors
from m2ib_server.admin import ModelRepositoryServicer
from m2ib_server.api import AttributionServicer, Desk, Parsing, Reception
from m2ib_server.oip import InferenceServicer, InferenceStatistics
from m2ib_server.repository import Repository
from m2ib_server.settings import DEFAULT_TRANSPORT, ServerSettings, TransportSettings
from m2ib_server.telemetry import log_event
from m2ib_server.watch import HealthBoard, HealthServicer

EXPLAINING = (AttributionServicer.name, InferenceServicer.name)  # the services that serve when a model does
GUARDED = SCOPES | {each.name: each.scope for each in (AttributionServicer, InferenceServicer, ModelRepositoryServicer)}
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
MAX_STREAMS = 2048  # of a connection at a time; more wait in the client, and without a bound each would take memory
PROBE_BYTES = 4096  # no question for health is longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What answers calls.

    Attributes:
        desk: what the services that explain share.
        repository: where models come from and go to.
        reception: what surrounds every call.
        statistics: what the Open Inference Protocol tells of past calls; an observer of the reception's.
    """

    desk: Desk
    repository: Repository
    reception: Reception
    statistics: InferenceStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A server of everything and one of health alone; neither listens yet.

    Attributes:
        server: has every service.
        probed: has health alone, in plaintext, for probes that can show no certificate; it may listen nowhere.
    """

    server: grpc.aio.Server
    probed: grpc.aio.Server

    async def start(self, settings: ServerSettings, credentials: grpc.ServerCredentials | None) -> str:
        """Listen and take calls; return "host:port" with the port that was taken, or the path of a socket.

        Raises:
            OSError: an address cannot be listened on.
        """
        address = _listen(self.server, settings.listen, credentials)
        if settings.transport.health_listen is not None:
            log_event("health", address=_listen(self.probed, settings.transport.health_listen, None))
        await self.server.start()
        await self.probed.start()
        log_event("listening", address=address)
        return address

    async def stop(self) -> None:
        """End every call that is left and listen no more."""
        await asyncio.gather(self.server.stop(None), self.probed.stop(None))


def build_wire(
    services: Services,
    board: HealthBoard,
    settings: ServerSettings,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> Wire:
    """Put every service on a server, with the board's health; `interceptors` see calls first. On the event loop."""
    server = grpc.aio.server(
        interceptors=[*interceptors, Doors(services.reception), Parsing()],
        options=channel_options(settings.max_message_bytes, settings.transport),
    )
    health = HealthServicer(board)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    attribution = AttributionServicer(services.desk, services.reception, settings)
    attribution_pb2_grpc.add_AttributionServiceServicer_to_server(attribution, server)
    repository = ModelRepositoryServicer(services.repository, services.reception)
    model_repository_pb2_grpc.add_ModelRepositoryServicer_to_server(repository, server)
    inference = InferenceServicer(
        services.desk, services.reception, services.repository, board, services.statistics, settings
    )
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, server)
    if settings.reflection:
        names = (*EXPLAINING, repository.name, HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    if settings.transport.channelz:
        channelz.add_channelz_servicer(server)
    probed = grpc.aio.server(options=channel_options(PROBE_BYTES))
    health_pb2_grpc.add_HealthServicer_to_server(health, probed)
    return Wire(server=server, probed=probed)


def counted_services() -> list[ServiceDescriptor]:
    """Return the services whose every method is counted from zero, called or not."""
    return [
        attribution_pb2.DESCRIPTOR.services_by_name["AttributionService"],
        model_repository_pb2.DESCRIPTOR.services_by_name["ModelRepository"],
        inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
    ]


def channel_options(max_message_bytes: int, transport: TransportSettings = DEFAULT_TRANSPORT) -> list[tuple[str, int]]:
    """Return the server's channel options: explicit limits, a port of its own, pings that firewalls make necessary.

    A connection is replaced at some age, so that clients resolve the address anew and find servers that were added.
    """
    age = [
        ("grpc.max_connection_age_ms", int(1000 * transport.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", int(1000 * transport.connection_age_grace_seconds)),
    ]
    return [
        *(age if transport.max_connection_age_seconds else []),
        ("grpc.enable_channelz", int(transport.channelz)),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, not a wish
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def _listen(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    try:
        port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    except RuntimeError as error:
        raise OSError(f"listen: cannot listen on {listen}; allowed: a free host:port") from error
    return listen if listen.startswith(UNIX) else f"{listen.rpartition(':')[0]}:{port}"
