"""Real RPCs against a server of this process, whose only service is made up."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from prometheus_client import CollectorRegistry

from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.sight.rpc_metrics import GO_NAME, RpcMetrics

SERVICE = "made.up.v1.Service"


async def one(request, context):
    if request == b"bad":
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad")
    if request == b"bug":
        raise RuntimeError("bug")
    if request == b"wait":
        await asyncio.sleep(60)
    return b"answer"


async def several(request, context):
    for _ in range(3):
        yield b"answer"
    if request == b"wait":
        await asyncio.sleep(60)


async def written(request, context):
    for _ in range(2):
        await context.write(b"answer")


async def gathered(requests, context):
    return b"".join([request async for request in requests])


async def echoed(requests, context):
    async for request in requests:
        yield request


async def read(requests, context):
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(request)


HANDLERS = {
    "One": grpc.unary_unary_rpc_method_handler(one),
    "Several": grpc.unary_stream_rpc_method_handler(several),
    "Written": grpc.unary_stream_rpc_method_handler(written),
    "Gathered": grpc.stream_unary_rpc_method_handler(gathered),
    "Echoed": grpc.stream_stream_rpc_method_handler(echoed),
    "Read": grpc.stream_stream_rpc_method_handler(read),
}


class Counted:
    """A channel to the server, and what was counted there."""

    def __init__(self, channel, registry):
        self.channel = channel
        self._registry = registry

    def value(self, name, method, kind, **labels):
        of = {"grpc_type": kind, "grpc_service": SERVICE, "grpc_method": method, **labels}
        return self._registry.get_sample_value(name, of)

    async def ended(self, method, kind, code):
        """Wait until a call is counted as ended so: the client may know first."""
        async with asyncio.timeout(60):
            while not self.value("grpc_server_handled_total", method, kind, grpc_code=code):  # noqa: ASYNC110 - counters wake nobody
                await asyncio.sleep(0.01)

    @property
    def methods(self):
        return {sample.labels["grpc_method"] for family in self._registry.collect() for sample in family.samples}


@asynccontextmanager
async def counted():
    registry = CollectorRegistry()
    server = grpc.aio.server(interceptors=[RpcMetrics(registry)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, HANDLERS)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Counted(channel, registry)
    finally:
        await server.stop(None)


async def test_a_unary_call_is_counted_begun_received_sent_handled_and_timed():
    async with counted() as server:
        assert await server.channel.unary_unary(f"/{SERVICE}/One")(b"") == b"answer"
        await server.ended("One", "unary", "OK")
        for name in ("started_total", "msg_received_total", "msg_sent_total", "handling_seconds_count"):
            assert server.value(f"grpc_server_{name}", "One", "unary") == 1
        assert server.value("grpc_server_handled_total", "One", "unary", grpc_code="Unknown") == 0


@pytest.mark.parametrize(
    ("method", "kind", "received", "sent"),
    [
        ("Several", "server_stream", 1, 3),
        ("Written", "server_stream", 1, 2),
        ("Gathered", "client_stream", 2, 1),
        ("Echoed", "bidi_stream", 2, 2),
        ("Read", "bidi_stream", 2, 2),
    ],
)
async def test_every_message_of_a_stream_is_counted(method, kind, received, sent):
    async with counted() as server:
        path, requests = f"/{SERVICE}/{method}", [b"a", b"b"]
        if kind == "server_stream":
            answers = [answer async for answer in server.channel.unary_stream(path)(b"")]
        elif kind == "client_stream":
            answers = [await server.channel.stream_unary(path)(requests)]
        else:
            answers = [answer async for answer in server.channel.stream_stream(path)(requests)]
        assert len(answers) == sent
        await server.ended(method, kind, "OK")
        assert server.value("grpc_server_msg_received_total", method, kind) == received
        assert server.value("grpc_server_msg_sent_total", method, kind) == sent


@pytest.mark.parametrize(("request_", "code"), [(b"bad", "InvalidArgument"), (b"bug", "Unknown")])
async def test_a_call_that_fails_is_counted_under_gos_name_of_its_code(request_, code):
    async with counted() as server:
        with pytest.raises(grpc.aio.AioRpcError):
            await server.channel.unary_unary(f"/{SERVICE}/One")(request_)
        await server.ended("One", "unary", code)
        assert server.value("grpc_server_handled_total", "One", "unary", grpc_code="OK") == 0
        assert server.value("grpc_server_msg_sent_total", "One", "unary") == 0


async def test_a_deadline_and_a_client_that_leaves_are_told_apart():
    async with counted() as server:
        with pytest.raises(grpc.aio.AioRpcError):
            await server.channel.unary_unary(f"/{SERVICE}/One")(b"wait", timeout=0.2)
        await server.ended("One", "unary", "DeadlineExceeded")
        call = server.channel.unary_stream(f"/{SERVICE}/Several")(b"wait")
        assert await call.read() == b"answer"
        call.cancel()
        await server.ended("Several", "server_stream", "Canceled")


async def test_a_method_that_does_not_exist_makes_no_series():
    async with counted() as server:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await server.channel.unary_unary(f"/{SERVICE}/Zebrafinch")(b"")
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert server.methods == set()


def test_methods_of_known_services_are_counted_from_zero():
    registry = CollectorRegistry()
    RpcMetrics(registry, [pb.DESCRIPTOR.services_by_name["AttributionService"]])
    labels = {"grpc_type": "bidi_stream", "grpc_service": "m2ib.v1.AttributionService", "grpc_method": "ExplainBatch"}
    assert registry.get_sample_value("grpc_server_started_total", labels) == 0
    for name in GO_NAME.values():
        assert registry.get_sample_value("grpc_server_handled_total", {**labels, "grpc_code": name}) == 0


def test_every_status_code_has_gos_name():
    assert set(GO_NAME) == set(grpc.StatusCode)
