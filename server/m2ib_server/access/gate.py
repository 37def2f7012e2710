"""The gate: who calls, by token or certificate, and whether that caller may do what it asks for."""

import time
from collections.abc import Callable, Iterable, Set
from typing import Any

from m2ib_server.access import certificates
from m2ib_server.access.bearer import Bearers, bearer_token
from m2ib_server.access.identity import Identity
from m2ib_server.errors import CredentialsMissing, ScopeMissing, ServiceError


class AccessGate:
    """Admits callers. A token goes before a certificate: it is the narrower of the two, and a bad one is no guest."""

    def __init__(
        self,
        bearers: Bearers,
        *,
        certificate_scopes: Set[str] = frozenset(),
        certificate_admins: Set[str] = frozenset(),
        anonymous: Set[str] | None = None,
        asks_for_certificates: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Admit these.

        Args:
            bearers: whose tokens are known.
            certificate_scopes: what any certificate that the handshake accepted allows.
            certificate_admins: the names in certificates that are allowed `admin` beyond that.
            anonymous: what nobody in particular may do; None refuses them.
            asks_for_certificates: whether the handshake may have accepted one.
            clock: seconds since 1970.
        """
        self._bearers = bearers
        self._certificate_scopes = frozenset(certificate_scopes)
        self._certificate_admins = frozenset(certificate_admins)
        self._anonymous = None if anonymous is None else Identity(name="", scopes=frozenset(anonymous))
        self._asks_for_certificates = asks_for_certificates
        self._clock = clock

    def admit(self, context: Any, scope: str) -> str:
        """Return the caller's name, "" for an anonymous one.

        Raises:
            CredentialsMissing: it does not say who it is, and must.
            CredentialsInvalid: it is not who it says.
            CredentialsExpired: it was, once.
            ScopeMissing: it may not do what needs `scope`.
        """
        identity = self._identity(context)
        if scope not in identity.scopes:
            raise ScopeMissing(scope)
        return identity.name

    def judge(self, metadata: Iterable[tuple[str, str | bytes]]) -> ServiceError | None:
        """Return why `admit` will refuse a call with this metadata, whatever else is known; None where that is open."""
        if self._bearers.is_empty:
            return None
        try:
            token = bearer_token(metadata)
            if token is not None:
                self._bearers.identify(token, self._clock())
        except ServiceError as error:
            return error
        is_nobody = token is None and self._anonymous is None and not self._asks_for_certificates
        return CredentialsMissing() if is_nobody else None

    def _identity(self, context: Any) -> Identity:
        if not self._bearers.is_empty:
            token = bearer_token(context.invocation_metadata() or ())
            if token is not None:
                return self._bearers.identify(token, self._clock())
        named = certificates.identify(context.auth_context(), self._certificate_scopes, self._certificate_admins)
        identity = named or self._anonymous
        if identity is None:
            raise CredentialsMissing
        return identity
