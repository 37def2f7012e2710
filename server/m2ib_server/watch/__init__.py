"""Watches over the server's life: what its compute threads do, what health tells of them, when and how it ends."""

from m2ib_server.watch.board import HealthBoard
from m2ib_server.watch.drain import drain
from m2ib_server.watch.health import HealthServicer
from m2ib_server.watch.signals import Stop
from m2ib_server.watch.watchdog import ENGINE_GIVEN_UP, Watchdog

__all__ = ["ENGINE_GIVEN_UP", "HealthBoard", "HealthServicer", "Stop", "Watchdog", "drain"]
