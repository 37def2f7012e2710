"""Measures the memory of a server process: at rest, while many clients are served, and once it has idled."""

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from m2ib_client import AsyncClient
from serving import running_server
from subject import TEXT, Subject, png
from vitals import Vitals, vitals_of

CLIENTS = 32
STEPS = 2  # more take longer and no more memory
TRIM_SECONDS = 7.0  # the engine gives memory back after five without work


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """A server's vitals.

    Attributes:
        rest: ready, before the first request.
        busy: after a burst of `CLIENTS` requests side by side; its `peak_bytes` is the burst's.
        idle: some seconds later.
    """

    rest: Vitals
    busy: Vitals
    idle: Vitals


def measure(subject: Subject, threads: int) -> Footprint:
    """Start a server, send it a burst, let it idle."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(subject.models, Path(folder), "--threads", str(threads)) as server,
    ):
        rest = vitals_of(server.process.pid)
        asyncio.run(_burst(server.address, subject.preset))
        busy = vitals_of(server.process.pid)
        time.sleep(TRIM_SECONDS)
        return Footprint(rest=rest, busy=busy, idle=vitals_of(server.process.pid))


async def _burst(address: str, preset: str) -> None:
    """Ask for explanations of so many images at once; but for the steps as published."""
    async with AsyncClient(address, timeout=None) as client:
        await asyncio.gather(*(client.explain(png(preset, number), TEXT, steps=STEPS) for number in range(CLIENTS)))
