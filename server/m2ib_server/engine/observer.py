"""Says what whoever watches an engine may be told. The engine knows nothing of who that is."""

from typing import Protocol

from m2ib_server.package import Role


class EngineObserver(Protocol):
    """Watches one engine. Called on its compute thread: must return at once and never raise."""

    def called(self, role: Role, *, rows: int, seconds: float) -> None:
        """Note one call of a graph that succeeded: how many rows it took, of all jobs together, and how long."""
        ...

    def advanced(self, *, jobs: int, seconds: float) -> None:
        """Note one round: how many jobs had a turn, and how long it took."""
        ...


class Unobserved:
    """Watches nothing."""

    def called(self, role: Role, *, rows: int, seconds: float) -> None:
        """Note nothing."""

    def advanced(self, *, jobs: int, seconds: float) -> None:
        """Note nothing."""


UNOBSERVED = Unobserved()
