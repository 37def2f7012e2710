"""Owns what this protocol asks of the server's health. It is what grpc.health.v1 tells, so the two never differ."""

from typing import Protocol


class Health(Protocol):
    """Knows what serves."""

    def is_serving(self, model: str = "") -> bool:
        """Return whether a model serves, by its name or `name:version`, or, without a name, the whole server."""
        ...
