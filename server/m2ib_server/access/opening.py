"""Opens gate and encryption as the settings say; reads every file they name, so that boot tells of a bad one."""

import logging
from dataclasses import dataclass
from pathlib import Path

import grpc

from m2ib_server.access import jwts, tokens
from m2ib_server.access.address import is_loopback
from m2ib_server.access.bearer import Bearers, JwtSource
from m2ib_server.access.gate import AccessGate
from m2ib_server.access.identity import ADMIN, EXPLAIN
from m2ib_server.access.transport import TlsFiles, server_credentials
from m2ib_server.access.watched import Watched
from m2ib_server.settings import AccessSettings
from m2ib_server.telemetry import log_event


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What stands between the network and the services.

    Attributes:
        gate: who may call.
        credentials: the wire's encryption; None for a plaintext one.
    """

    gate: AccessGate
    credentials: grpc.ServerCredentials | None


def open_access(settings: AccessSettings, listen: str) -> Access:
    """Read the files and return gate and encryption; warn where anybody may administer.

    Raises:
        AccessFileUnusable: a file is not what it should be.
    """
    bearers = Bearers(_lines(settings.tokens), _provider(settings))
    is_open = bearers.is_empty and settings.client_ca is None
    anonymous = anonymous_scopes(settings, listen) if is_open else None
    access = Access(
        gate=AccessGate(
            bearers,
            certificate_scopes=settings.certificate_scopes,
            certificate_admins=settings.certificate_admins,
            anonymous=anonymous,
            asks_for_certificates=settings.client_ca is not None,
        ),
        credentials=_credentials(settings),
    )
    if anonymous is not None and ADMIN in anonymous:  # right on a desk; behind a proxy on the same machine it is not
        log_event("anonymous callers are admins", level=logging.WARNING, address=listen)
    return access


def anonymous_scopes(settings: AccessSettings, listen: str) -> frozenset[str]:
    """Return what everybody may do where nobody is asked for a name: administer only what no other machine reaches."""
    is_admin = settings.anonymous_admin or is_loopback(listen)
    return frozenset({EXPLAIN, ADMIN}) if is_admin else frozenset({EXPLAIN})


def _lines(path: Path | None) -> Watched[dict[str, tokens.TokenLine]] | None:
    return None if path is None else Watched("token file", [path], lambda: tokens.read_tokens(path))


def _provider(settings: AccessSettings) -> JwtSource | None:
    path = settings.jwt_keys
    if path is None:
        return None
    issuer = jwts.Issuer(name=settings.jwt_issuer, audience=settings.jwt_audience)
    return JwtSource(issuer=issuer, keys=Watched("key set", [path], lambda: jwts.read_keys(path)))


def _credentials(settings: AccessSettings) -> grpc.ServerCredentials | None:
    if settings.certificate is None or settings.key is None:
        return None
    return server_credentials(
        TlsFiles(certificate=settings.certificate, key=settings.key, client_ca=settings.client_ca)
    )
