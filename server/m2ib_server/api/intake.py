"""Bounds what requests under way may take before the engine sees them, all together and those of each caller."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from m2ib_server.api.account import Account, Shared
from m2ib_server.errors import CallerFull, ServerFull

UNBOUNDED = 1 << 62


class Place:
    """One request's place; it grows when a small file turns out to be a large image."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        """Begin with no bytes; whatever the place takes is on each of the accounts, or on none if one refuses."""
        self._accounts = accounts
        self._own_bytes = 0
        self._shared: list[Shared] = []

    def grow(self, size_bytes: int) -> None:
        """Take more bytes.

        Raises:
            ServerFull: they would be too many.
            CallerFull: they would be too many of this caller's.
        """
        for account in self._accounts:
            account.check_bytes(size_bytes, held_bytes=self._held_bytes)
        for account in self._accounts:
            account.used_bytes += size_bytes
        self._own_bytes += size_bytes

    def share(self, shared: Shared) -> None:
        """Hold what other requests may hold as well; its bytes count once, and once for each caller that has a part.

        Raises:
            ServerFull: they would be too many.
            CallerFull: they would be too many of this caller's.
        """
        for account in self._accounts:
            if shared not in account.holders:
                account.check_bytes(shared.size_bytes, held_bytes=self._held_bytes)
        for account in self._accounts:
            account.hold(shared)
        self._shared.append(shared)

    def leave(self) -> None:
        """Give everything back."""
        for account in self._accounts:
            account.used_bytes -= self._own_bytes
            for shared in self._shared:
                account.let_go(shared)

    @property
    def _held_bytes(self) -> int:
        return self._own_bytes + sum(shared.size_bytes for shared in self._shared)


class Intake:
    """The requests under way. One event loop's alone."""

    def __init__(
        self,
        *,
        max_requests: int,
        max_bytes: int,
        max_caller_requests: int = UNBOUNDED,
        max_caller_bytes: int = UNBOUNDED,
        until_end: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Hold at most so many requests, of at most so many bytes together; of a caller with a name at most its share.

        until_end: estimates when the next request under way ends, in seconds; None where nobody can tell.
        """
        self.everybody = Account(max_requests=max_requests, max_bytes=max_bytes, refusal=self._server_full)
        self.callers: dict[str, Account] = {}
        self._max_caller_requests = max_caller_requests
        self._max_caller_bytes = max_caller_bytes
        self._until_end = until_end

    @property
    def requests(self) -> int:
        """Requests under way."""
        return self.everybody.requests

    @property
    def max_requests(self) -> int:
        """How many there may be."""
        return self.everybody.max_requests

    @property
    def used_bytes(self) -> int:
        """What they take."""
        return self.everybody.used_bytes

    @property
    def max_bytes(self) -> int:
        """What they may take."""
        return self.everybody.max_bytes

    @contextmanager
    def place(self, size_bytes: int, caller: str = "") -> Iterator[Place]:
        """Hold a place for a request of `size_bytes`; a caller without a name has no account of its own.

        Raises:
            ServerFull: there is none.
            CallerFull: there is none for this caller.
        """
        with self._account(caller) as own, self._held([*own, self.everybody], size_bytes) as place:
            yield place

    @contextmanager
    def upload(self, caller: str) -> Iterator[None]:
        """Count an upload as one of its caller's requests; its bytes are the store's to count.

        Raises:
            CallerFull: there is no place for this caller.
        """
        with self._account(caller) as own, self._held(own, 0):
            yield

    @contextmanager
    def _account(self, caller: str) -> Iterator[list[Account]]:
        """Open a caller's account and close it once nothing is on it; yield it, or nothing for nobody in particular."""
        if not caller:
            yield []
            return
        if caller not in self.callers:
            self.callers[caller] = Account(
                max_requests=self._max_caller_requests, max_bytes=self._max_caller_bytes, refusal=self._caller_full
            )
        account = self.callers[caller]
        try:
            yield [account]
        finally:
            if account.is_empty:
                self.callers.pop(caller, None)

    @contextmanager
    def _held(self, accounts: Sequence[Account], size_bytes: int) -> Iterator[Place]:
        for account in accounts:
            account.check_request()
        place = Place(accounts)
        place.grow(size_bytes)
        for account in accounts:
            account.requests += 1
        try:
            yield place
        finally:
            for account in accounts:
                account.requests -= 1
            place.leave()

    def _server_full(self, what: str, *, used: int, limit: int) -> ServerFull:
        return ServerFull(what=what, used=used, limit=limit, retry_seconds=self._until_end())

    def _caller_full(self, what: str, *, used: int, limit: int) -> CallerFull:
        return CallerFull(what=what, used=used, limit=limit, retry_seconds=self._until_end())
