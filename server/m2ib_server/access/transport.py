"""Owns the encryption of the wire: certificate and key from files, read anew for the first handshake after a change."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from m2ib_server.access.watched import Watched
from m2ib_server.errors import AccessFileUnusable


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where the server's identity and its clients' authority are kept, all of them in PEM.

    Attributes:
        certificate: the server's, followed by those between it and its authority.
        key: the certificate's, without a passphrase.
        client_ca: the authorities whose clients are let in; None asks no client for a certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None

    @property
    def paths(self) -> list[Path]:
        """Every file that is read."""
        return [self.certificate, self.key, *([self.client_ca] if self.client_ca else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsContent:
    """What was in the files, checked."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return it as gRPC takes it."""
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], root_certificates=self.client_ca
        )


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files: a new pair serves the next handshake, a bad one leaves the old.

    Raises:
        AccessFileUnusable: the files do not hold a certificate, its key and authorities.
    """
    watched = Watched("certificate", files.paths, lambda: read_tls(files))
    return grpc.dynamic_ssl_server_credentials(
        watched.current().configuration(),
        _fetcher(watched),
        require_client_authentication=files.client_ca is not None,
    )


def read_tls(files: TlsFiles) -> TlsContent:
    """Read the files; the key has to be the certificate's.

    Raises:
        AccessFileUnusable: naming the file.
    """
    certificate, key = _bytes(files.certificate), _bytes(files.key)
    leaf = _certificates(files.certificate, certificate)[0]
    if _public_part(files.key, key) != leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise AccessFileUnusable(str(files.key), seen="another key", allowed=f"the key of {files.certificate}")
    client_ca = None if files.client_ca is None else _bytes(files.client_ca)
    if client_ca is not None and files.client_ca is not None:
        _certificates(files.client_ca, client_ca)
    return TlsContent(certificate=certificate, key=key, client_ca=client_ca)


def _fetcher(watched: Watched[TlsContent]) -> Callable[[], Any]:
    """Return what gRPC asks before each handshake, on threads of its own: None leaves everything as it is."""
    served = watched.version

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        content, version = watched.current(), watched.version
        if version == served:
            return None
        served = version
        return content.configuration()

    return fetch


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessFileUnusable(str(path), seen=type(error).__name__, allowed="a readable file") from error


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise AccessFileUnusable(str(path), seen="no certificate", allowed="certificates in PEM") from error


def _public_part(path: Path, pem: bytes) -> bytes:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it has a passphrase
        raise AccessFileUnusable(
            str(path), seen="no such key", allowed="a private key in PEM, no passphrase"
        ) from error
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
