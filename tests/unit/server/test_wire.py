"""What every channel of the server is told."""

import asyncio
import struct

import grpc

from m2ib_server.settings import TransportSettings
from m2ib_server.wire import channel_options

MESSAGE_BYTES = 12345


def options(**transport):
    listed = channel_options(MESSAGE_BYTES, TransportSettings(**transport))
    assert len(dict(listed)) == len(listed), "an option is given twice"
    return dict(listed)


def test_messages_are_bounded_both_ways_and_no_port_is_shared():
    told = options()
    assert told["grpc.max_receive_message_length"] == told["grpc.max_send_message_length"] == MESSAGE_BYTES
    assert told["grpc.so_reuseport"] == 0


def test_a_connection_ages_as_long_as_it_was_given_and_for_ever_if_it_was_given_nothing():
    aged = options(max_connection_age_seconds=1.5, connection_age_grace_seconds=2)
    assert (aged["grpc.max_connection_age_ms"], aged["grpc.max_connection_age_grace_ms"]) == (1500, 2000)
    assert "grpc.max_connection_age_ms" not in options(max_connection_age_seconds=0)


def test_channelz_is_on_by_setting_only():
    assert options()["grpc.enable_channelz"] == 0
    assert options(channelz=True)["grpc.enable_channelz"] == 1


def test_idle_connections_are_pinged_and_may_ping():
    told = options()
    assert told["grpc.keepalive_time_ms"] > told["grpc.keepalive_timeout_ms"] > 0
    assert told["grpc.keepalive_permit_without_calls"] == 1
    assert told["grpc.http2.min_recv_ping_interval_without_data_ms"] < told["grpc.keepalive_time_ms"]


async def settings_frame(address):
    """Return what a server says of itself as an HTTP/2 connection opens: values by identifier (RFC 9113, 6.5)."""
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    head = await reader.readexactly(9)
    assert head[3] == 4, "the first frame is SETTINGS"
    body = await reader.readexactly(int.from_bytes(head[:3], "big"))
    writer.close()
    return dict(struct.iter_unpack(">HI", body))


async def test_a_connection_has_so_many_streams_at_a_time_and_no_more():
    max_concurrent_streams = 3  # its identifier
    server = grpc.aio.server(options=channel_options(4096))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        assert (await asyncio.wait_for(settings_frame(address), 60)).get(max_concurrent_streams) == 2048
    finally:
        await server.stop(None)
