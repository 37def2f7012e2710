"""Calls a unary method over a bare socket, with headers that no gRPC library would send, and says how it ended."""

import re
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9  # RFC 9113, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4  # the setting, RFC 9113, 6.5.2
MAX_FRAME = 1 << 14
EMPTY_MESSAGE = b"\0" * 5  # not compressed, and no byte long
# The first status that a connection's server writes is a literal in its header block (RFC 7541, 6.2), not compressed.
_STATUS = re.compile(rb"grpc-status.(\d{1,2})", re.DOTALL)
RESET = -1  # in a status's place: the stream or the connection was ended by the transport


@dataclass(frozen=True, kw_only=True)
class RawEnding:
    """How the call ended.

    Attributes:
        status: gRPC's number of the status, or RESET.
        heard: every byte that the server sent.
    """

    status: int
    heard: bytes


def raw_call(
    address: str,
    path: str,
    headers: Sequence[tuple[bytes, bytes]],
    *,
    seconds: float,
    body: bytes = EMPTY_MESSAGE,
    ends: bool = True,
) -> RawEnding:
    """Call a method with a body and these headers after the usual ones, over a connection of its own.

    A call that does not end has its body's last byte still to come, as long as it lasts.
    """
    block = b"".join(_literal(name, value) for name, value in (*_usual(address, path), *headers))
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        call = [*_header_frames(block), _frame(DATA, body, flags=END_STREAM if ends else 0, stream=1)]
        _try_sending(connection, PREFACE + _frame(SETTINGS) + b"".join(call))
        return _ending(connection)


@contextmanager
def stalled_call(address: str, path: str) -> Iterator[socket.socket]:
    """Call a method with an empty message, for as long as the body lasts, and let the server send nothing of an answer.

    The window that each stream begins with is 0 (RFC 9113, 6.9.2).
    """
    no_window = struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)
    block = b"".join(_literal(name, value) for name, value in _usual(address, path))
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        call = [*_header_frames(block), _frame(DATA, b"\0" * 5, flags=END_STREAM, stream=1)]
        connection.sendall(PREFACE + _frame(SETTINGS, no_window) + _frame(SETTINGS, flags=ACK) + b"".join(call))
        yield connection


def _ending(connection: socket.socket) -> RawEnding:
    heard = b""
    for kind, flags, stream, body in _frames(connection):
        heard += body
        found = _STATUS.search(heard)
        if kind == SETTINGS and not flags & ACK:
            _try_sending(connection, _frame(SETTINGS, flags=ACK))
        elif kind == PING and not flags & ACK:
            _try_sending(connection, _frame(PING, body, flags=ACK))
        elif stream == 1 and kind in (DATA, HEADERS) and flags & END_STREAM and found:
            return RawEnding(status=int(found[1]), heard=heard)
        elif kind in (RST_STREAM, GOAWAY):
            break
    return RawEnding(status=RESET, heard=heard)


def _frames(connection: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield each frame's kind, flags, stream and body until the peer hangs up."""
    with connection.makefile("rb") as reader:
        while len(head := _read(reader, 9)) == 9:
            stream = struct.unpack(">I", head[5:])[0] & 0x7FFFFFFF
            yield head[3], head[4], stream, _read(reader, int.from_bytes(head[:3], "big"))


def _read(reader: BinaryIO, size: int) -> bytes:
    try:
        return reader.read(size)
    except ConnectionResetError:
        return b""


def _try_sending(connection: socket.socket, frame: bytes) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # it has hung up; what it said may still be read
        connection.sendall(frame)


def _usual(address: str, path: str) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", address.encode()),
        (b"te", b"trailers"),  # without it gRPC resets the stream, whatever else is sent
        (b"content-type", b"application/grpc"),
    ]


def _header_frames(block: bytes) -> Iterator[bytes]:
    parts = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    for index, part in enumerate(parts):
        kind = HEADERS if index == 0 else CONTINUATION
        yield _frame(kind, part, flags=END_HEADERS if index == len(parts) - 1 else 0, stream=1)


def _frame(kind: int, body: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _literal(name: bytes, value: bytes) -> bytes:
    """Write a field that is not indexed and not compressed (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(_length(len(part)) + part for part in (name, value))


def _length(size: int) -> bytes:
    """Write an integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if size < 127:
        return bytes([size])
    written, rest = bytearray([127]), size - 127
    while rest >= 128:
        written.append(rest % 128 + 128)
        rest //= 128
    return bytes([*written, rest])
