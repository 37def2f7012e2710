"""Looks at the models' folder again and again; a look that fails is no reason to stop."""

import asyncio
import logging
from typing import Protocol

from m2ib_server.telemetry import log_event, origin_of


class Looks(Protocol):
    """Follows what lies in a folder."""

    async def look(self) -> None:
        """Look once."""
        ...


async def poll(repository: Looks, seconds: float) -> None:
    """Look every so many seconds, measured from the end of one look to the next, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await repository.look()
        except Exception as error:  # the next look may see what this one could not
            fields = {"error_type": type(error).__name__, "origin": origin_of(error)}
            log_event("look at the models failed", level=logging.ERROR, **fields)
