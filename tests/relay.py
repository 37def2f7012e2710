"""A TCP relay between a client and a server that loses the client while the server notices nothing, as networks do."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Relay:
    """Relays every connection; `cut` resets those there are towards the client and keeps them towards the server."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self._servers: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.bytes_to_server = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self.connections += 1
                self._clients.append(client)
                self._servers.append(server)
                threading.Thread(target=self._copy, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, False), daemon=True).start()

    def cut(self) -> None:
        for client in self._clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            client.shutdown(socket.SHUT_RD)
            client.close()
        self._clients.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in (*self._clients, *self._servers):
            each.close()

    def _copy(self, source: socket.socket, sink: socket.socket, is_upstream: bool) -> None:
        with contextlib.suppress(OSError):  # either side was cut
            while part := source.recv(1 << 16):
                sink.sendall(part)
                if is_upstream:
                    self.bytes_to_server += len(part)


@contextmanager
def relayed(target: str) -> Iterator[Relay]:
    relay = Relay(target)
    threading.Thread(target=relay.run, daemon=True).start()
    try:
        yield relay
    finally:
        relay.close()
