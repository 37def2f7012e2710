"""Reads who a client certificate names, once the handshake has proved that it is the caller's."""

from collections.abc import Iterable, Mapping, Set

from m2ib_server.access.identity import ADMIN, Identity, is_name
from m2ib_server.errors import CredentialsInvalid

KIND = "certificate:"
# The names of a certificate in what gRPC tells of a peer, the most telling first: a SPIFFE id is a URI.
NAMES = ("peer_uri", "peer_dns", "x509_common_name")
PRESENTED = "x509_pem_cert"


def identify(peer: Mapping[str, Iterable[bytes]], scopes: Set[str], admins: Set[str]) -> Identity | None:
    """Return whom the certificate names; None where the peer showed none.

    Args:
        peer: what gRPC tells of it (`auth_context`).
        scopes: what any certificate allows.
        admins: the names that are allowed `admin` beyond that.

    Raises:
        CredentialsInvalid: it has no name that may stand in a log.
    """
    if not peer.get(PRESENTED):
        return None
    for kind in NAMES:
        for value in peer.get(kind, ()):
            name = value.decode("utf-8", "replace")
            if is_name(name):
                allowed = frozenset(scopes) | (frozenset({ADMIN}) if name in admins else frozenset())
                return Identity(name=f"{KIND}{name}", scopes=allowed)
    raise CredentialsInvalid
