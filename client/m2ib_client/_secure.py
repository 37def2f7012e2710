"""Owns how a client knows its server and the server its client: TLS, and a token that never leaves in plaintext."""

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from m2ib_client._errors import InvalidRequestError

MAX_TOKEN_CHARACTERS = 6000  # what fits into gRPC's 8 KiB of metadata beside all else
_TOKEN = re.compile(r"[!-~]+")

FilePath: TypeAlias = str | os.PathLike[str]
TokenSource: TypeAlias = str | Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """What is trusted and shown on an encrypted channel; the files are in PEM and are read when the client is made.

    Attributes:
        ca: the authorities that the server's certificate must come from; None trusts the public ones.
        certificate: this client's own, where the server asks for one.
        key: its key, without a passphrase.
        server_name: the name in the server's certificate, where it is not the one that the address has.
    """

    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Security:
    """How a channel is opened. Holds secrets and shows none of them.

    Attributes:
        credentials: the channel's; None for a plaintext one.
        options: those of the channel that TLS adds.
        token: where the token of each call comes from; None sends none.
    """

    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, str], ...]
    token: TokenSource | None

    def __repr__(self) -> str:
        return f"Security(tls={self.credentials is not None}, token={self.token is not None})"

    def bearing(self, channel: Any) -> Any:
        """Return the channel, or one whose every call bears the token."""
        return channel if self.token is None else BearingChannel(channel, self.token)


def checked_security(address: str, tls: TLS | bool, token: TokenSource | None) -> Security:
    """Return how the channel to an address is opened.

    Raises:
        InvalidRequestError: a file cannot be read, a certificate comes without its key, the token is no token, or it
            would go over a network in plaintext.
    """
    settings = TLS() if tls is True else tls or None
    if isinstance(token, str):
        checked_token(token)
    if token is not None and settings is None and not is_loopback(address):
        seen = "a token for a server beyond this machine, over a plaintext channel"
        raise InvalidRequestError.of("token", seen=seen, allowed="tls, or a server on loopback")
    if settings is None:
        return Security(None, (), token)
    options = (("grpc.ssl_target_name_override", settings.server_name),) if settings.server_name else ()
    return Security(_credentials(settings), options, token)


def checked_token(token: object) -> str:
    """Return the token.

    Raises:
        InvalidRequestError: it is empty, too long or has characters that no token has; it is not repeated.
    """
    if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARACTERS or not _TOKEN.fullmatch(token):
        seen = f"{len(token)} characters" if isinstance(token, str) else type(token).__name__
        allowed = f"1 to {MAX_TOKEN_CHARACTERS} visible characters of ASCII"
        raise InvalidRequestError.of("token", seen=seen, allowed=allowed)
    return token


def is_loopback(address: str) -> bool:
    """Tell whether an address is reached without leaving this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host.lower() == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


class BearingChannel:
    """A channel whose every call bears a token; calls are gRPC's own, so cancelling and reading them is too."""

    def __init__(self, channel: Any, token: TokenSource) -> None:
        """Bear the token, asked for anew for each call where it is a function."""
        self._channel = channel
        self._token = token

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Return a method of one message for one."""
        return self._bearing(self._channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Return a method of a stream for one message."""
        return self._bearing(self._channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Return a method of one message for a stream."""
        return self._bearing(self._channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Return a method of a stream for a stream."""
        return self._bearing(self._channel.stream_stream(*args, **kwargs))

    def _bearing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, *, metadata: tuple[tuple[str, str], ...] | None = None, **kwargs: Any) -> Any:
            return method(request, metadata=(*(metadata or ()), self._header()), **kwargs)

        return call

    def _header(self) -> tuple[str, str]:
        token = self._token if isinstance(self._token, str) else checked_token(self._token())
        return "authorization", f"Bearer {token}"


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
    if (tls.certificate is None) != (tls.key is None):
        raise InvalidRequestError.of("tls", seen="a certificate or a key alone", allowed="both or none")
    ca, key, certificate = (
        None if path is None else _read(f"tls.{name}", path)
        for name, path in (("ca", tls.ca), ("key", tls.key), ("certificate", tls.certificate))
    )
    return grpc.ssl_channel_credentials(ca, private_key=key, certificate_chain=certificate)


def _read(field: str, path: FilePath) -> bytes:
    try:
        pem = Path(path).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        raise InvalidRequestError.of(field, seen=type(error).__name__, allowed="a readable file in PEM") from error
    if b"-----BEGIN " not in pem:
        raise InvalidRequestError.of(field, seen="a file of another form", allowed="a readable file in PEM")
    return pem
