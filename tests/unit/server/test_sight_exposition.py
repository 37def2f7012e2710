import socket
import threading
import time
from contextlib import ExitStack, closing

import pytest
from prometheus_client import CollectorRegistry, Gauge

from m2ib_server.sight.exposition import MAX_CONNECTIONS, MetricsServer
from scrape import read


@pytest.fixture
def shown():
    registry = CollectorRegistry()
    Gauge("answer", "The answer.", registry=registry).set(42)
    server = MetricsServer(registry)
    yield server
    server.close()


def connected(address):
    host, _, port = address.rpartition(":")
    return closing(socket.create_connection((host.strip("[]"), int(port)), timeout=60))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_metrics_are_shown_on_the_address_asked_for(shown, host):
    address = shown.start(f"{host}:0")
    assert address.rpartition(":")[0] == host
    assert read(address).value("answer") == 42


def test_closing_does_not_wait_for_a_connection_that_says_nothing(shown):
    with connected(shown.start("127.0.0.1:0")):
        closing_thread = threading.Thread(target=shown.close)
        closing_thread.start()
        closing_thread.join(timeout=60)
        assert not closing_thread.is_alive()


def test_a_crowd_of_silent_connections_is_hung_up_on_and_a_place_that_is_free_again_serves(shown):
    address = shown.start("127.0.0.1:0")
    with ExitStack() as crowd:
        first = [crowd.enter_context(connected(address)) for _ in range(MAX_CONNECTIONS)]
        late = crowd.enter_context(connected(address))
        assert late.recv(1) == b""  # hung up on
        assert all(connection.fileno() >= 0 for connection in first)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert read(address).value("answer") == 42
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_port_that_is_taken_is_named(shown):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"metrics-listen: cannot listen on {address}"):
            shown.start(address)


def test_closing_twice_or_before_the_start_is_no_fault(shown):
    shown.close()
    shown.start("127.0.0.1:0")
    shown.close()
    shown.close()
