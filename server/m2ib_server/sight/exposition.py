"""Serves metrics over HTTP on a port of their own. Plaintext, without a password: for loopback or a trusted network."""

import socket
import threading
import time
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

MAX_CONNECTIONS = 16  # a scraper needs one; more than a few is somebody who only knocks
CONNECTION_SECONDS = 10.0  # how long one may take in all, from its begin until its answer is read


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scrape is no event."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, none of which an exit waits for, and a time by which each has to be done."""

    daemon_threads = True

    def __init__(self, family: socket.AddressFamily, address: Any, *, connection_seconds: float) -> None:
        self.address_family = family
        self._seconds = connection_seconds
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._until: dict[socket.socket, float] = {}  # of the connections that are open, on the monotonic clock
        self._until_lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server for the host's name, which may take for ever."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve on a thread; hang up on whoever comes when all places are taken."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._until_lock:
            self._until[request] = time.monotonic() + self._seconds
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve, then free the place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def shutdown_request(self, request: Any) -> None:
        """Hang up; from here on the connection has no time to keep."""
        with self._until_lock:
            self._until.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End the connections whose time is over, whatever their threads wait for; called again and again."""
        now = time.monotonic()
        with self._until_lock:  # none of them is closed meanwhile
            for request, until in self._until.items():
                if now >= until:
                    with suppress(OSError):  # the other side was faster
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke."""


class MetricsServer:
    """Serves a registry's metrics until it is closed."""

    def __init__(self, registry: CollectorRegistry, *, connection_seconds: float = CONNECTION_SECONDS) -> None:
        """Serve nothing yet; each connection will have so long in all."""
        self._registry = registry
        self._connection_seconds = connection_seconds
        self._server: _Server | None = None

    def start(self, listen: str) -> str:
        """Listen on "host:port"; return it with the port that was taken.

        Raises:
            OSError: the address cannot be listened on.
        """
        host, _, port = listen.rpartition(":")
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            server = _Server(family, address, connection_seconds=self._connection_seconds)
        except OSError as error:
            raise OSError(f"metrics-listen: cannot listen on {listen}; allowed: a free host:port") from error
        server.set_app(make_wsgi_app(self._registry))
        threading.Thread(target=server.serve_forever, args=(0.1,), name="m2ib-metrics", daemon=True).start()
        self._server = server
        return f"{host}:{server.server_port}"

    def close(self) -> None:
        """Take no connection more; one that is being served is not waited for."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
