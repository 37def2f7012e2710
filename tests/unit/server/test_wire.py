"""What every channel of the server is told."""

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
