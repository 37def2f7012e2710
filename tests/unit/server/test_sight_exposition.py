import socket
import threading
import time
from contextlib import ExitStack, closing, suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge

from m2ib_server.sight.exposition import MAX_CONNECTIONS, MetricsServer
from scrape import read


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    Gauge("answer", "The answer.", registry=registry).set(42)
    return registry


@pytest.fixture
def shown(registry):
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


def read_within_a_minute(address):
    """Scrape until it is served, and return the answer."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return read(address).value("answer")
        except OSError:
            assert time.monotonic() < deadline, "a scraper is kept out"
            time.sleep(0.05)


def test_a_crowd_is_hung_up_on_and_a_place_that_is_free_again_serves(shown):
    address = shown.start("127.0.0.1:0")
    with ExitStack() as crowd:
        first = [crowd.enter_context(connected(address)) for _ in range(MAX_CONNECTIONS)]
        late = crowd.enter_context(connected(address))
        assert late.recv(1) == b""  # hung up on
        assert all(connection.fileno() >= 0 for connection in first)
    assert read_within_a_minute(address) == 42


@pytest.mark.parametrize("said", [b"", b"G"], ids=["silent", "dripping"])
def test_a_crowd_that_stays_has_only_so_long_however_it_speaks(registry, said):
    """Sixteen connections say nothing, or a byte often enough never to be silent for long."""
    with ExitStack() as stack:
        shown = MetricsServer(registry, connection_seconds=0.5)
        stack.callback(shown.close)
        address = shown.start("127.0.0.1:0")
        crowd = [stack.enter_context(connected(address)) for _ in range(MAX_CONNECTIONS)]
        stopped = threading.Event()
        speaking = threading.Thread(target=drip, args=(crowd, said, stopped))
        speaking.start()
        stack.callback(speaking.join)
        stack.callback(stopped.set)
        assert read_within_a_minute(address) == 42


def drip(crowd, said, stopped):
    """Say the same on each connection again and again, also on one that was hung up on."""
    while not stopped.wait(0.05):
        for connection in crowd:
            with suppress(OSError):
                connection.sendall(said)


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
