"""Ends a server's calls in order: none begins, those under way finish within the grace, the rest are cut off."""

import asyncio

import grpc

from m2ib_server.api import Lifecycle
from m2ib_server.telemetry import log_event

NOTICE_SECONDS = 0.5  # how long newcomers still learn why they are refused, before connections are told to end
CUT_SECONDS = 5.0  # for calls that were cut off to end, and for their statuses to go out
FLUSH_SECONDS = 1.0  # for the last answers; watchers of health, who never end, are cut off after it


async def drain(server: grpc.aio.Server, lifecycle: Lifecycle, grace_seconds: float) -> None:
    """Refuse newcomers at once, let calls finish for as long as the grace lasts, cut off the rest, end connections.

    Connections are told to end soon after newcomers are first refused: whoever comes back then connects anew, and
    reaches a server that takes calls if there is one.
    """
    lifecycle.drain()
    notice = min(NOTICE_SECONDS, grace_seconds)
    is_idle = await lifecycle.until_idle(notice)
    stopping = asyncio.ensure_future(server.stop(grace_seconds - notice + CUT_SECONDS))
    if not is_idle and not await lifecycle.until_idle(grace_seconds - notice):
        log_event("calls cut off", callers=lifecycle.cut())
        await lifecycle.until_idle(CUT_SECONDS)
    await server.stop(FLUSH_SECONDS)
    await stopping
