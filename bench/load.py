"""Loads the real server with clients, closed and open loop, and holds its throughput against the engine's own.

Run as `PYTHONPATH=tests python bench/load.py`.
"""

import argparse
import asyncio
import itertools
import statistics
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from alone import Asked, EngineAlone
from chart import Panel
from report import Report, Value, duration
from serving import running_server
from subject import add_arguments, png, prepare
from turns import take_turns
from visit import Level, Visit, Visitors

CLIENTS = (1, 2, 4, 8, 16, 32)
CLIENTS_REPEATED = (1, 4, 16)
MANY = 16
PER_TURN = 3 * MANY  # so that filling and emptying the queue weighs little beside what is between
FEWEST_REQUESTS = 30
RATES = (0.5, 0.8, 0.95)  # of the throughput of many clients
ALONE, SERVED = f"steps as published, engine alone, {MANY} in flight", f"steps as published, server, {MANY} clients"
ONE_PUBLISHED = "steps as published, new images, 1 client"
NEW, REPEATED = "new images", "one image again and again"
PUBLISHED = Asked()


class Images:
    """PNG files, made before they are needed."""

    def __init__(self, preset: str, count: int) -> None:
        """Make so many, each of them different."""
        self._made = iter([png(preset, number) for number in range(1, count + 1)])
        self._repeated = png(preset, 0)

    def new(self, count: int) -> list[bytes]:
        """Return images that were never returned before."""
        images = list(itertools.islice(self._made, count))
        assert len(images) == count, "too few were made"
        return images

    def repeated(self, count: int) -> list[bytes]:
        """Return the same image again and again."""
        return [self._repeated] * count


def main() -> None:
    """Load the server at every level, let it and the engine take turns, and report."""
    options = _parse()
    torch.set_num_threads(options.threads)
    subject = prepare(options.packages, options.preset)
    images = Images(subject.preset, _images_needed(options.rounds, options.open_requests))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(running_server(subject.models, folder, "--threads", str(options.threads)))
        runner = stack.enter_context(asyncio.Runner())
        published = Visitors(server.address, PUBLISHED.steps)
        with EngineAlone(subject, options.threads) as engine:
            turns = _turns(engine, published, images, runner, options.rounds)
        levels = {ONE_PUBLISHED: runner.run(published.closed(images.new(_requests(1)), clients=1))}
        visitors = Visitors(server.address, options.steps)
        levels |= {name: runner.run(visit) for name, visit in _closed(visitors, images)}
        rate = levels[_name(NEW, MANY)].rate
        for share in RATES:
            visit = visitors.open(images.new(options.open_requests), share * rate)
            levels[f"open loop at {share:.0%} of {MANY} clients' throughput"] = runner.run(visit)
    _report(options, levels, turns).write(options.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=4, help="turns of the engine and the server")
    parser.add_argument("--steps", type=int, default=2, help="steps where the published number would take too long")
    parser.add_argument("--open-requests", type=int, default=48, help="requests of each open loop")
    return parser.parse_args()


def _requests(clients: int) -> int:
    """The requests of a level: four of each client, or as many as percentiles need at least."""
    return max(FEWEST_REQUESTS, 4 * clients)


def _images_needed(rounds: int, open_requests: int) -> int:
    closed = sum(_requests(clients) for clients in CLIENTS)
    return closed + _requests(1) + PER_TURN * (rounds + 1) + len(RATES) * open_requests


def _turns(
    engine: EngineAlone, visitors: Visitors, images: Images, runner: asyncio.Runner, rounds: int
) -> dict[str, list[float]]:
    """Let the engine alone and the whole server do the same work by turns: `PER_TURN` pairs, `MANY` at a time."""
    jobs = iter([engine.prepare(Asked(image=number)) for number in range(1, PER_TURN * (rounds + 1) + 1)])

    def alone() -> None:
        engine.run(itertools.islice(jobs, PER_TURN), in_flight=MANY)

    def served() -> None:
        runner.run(visitors.closed(images.new(PER_TURN), clients=MANY))

    return take_turns({ALONE: alone, SERVED: served}, rounds=rounds)


def _closed(visitors: Visitors, images: Images) -> Iterator[tuple[str, Coroutine[None, None, Level]]]:
    for clients in CLIENTS:
        yield _name(NEW, clients), visitors.closed(images.new(_requests(clients)), clients)
    for clients in CLIENTS_REPEATED:
        yield _name(REPEATED, clients), visitors.closed(images.repeated(_requests(clients)), clients)


def _name(images: str, clients: int) -> str:
    return f"{images}, {clients} client{'s' if clients > 1 else ''}"


def _report(options: argparse.Namespace, levels: Mapping[str, Level], turns: Mapping[str, Sequence[float]]) -> Report:
    latencies = {name: [visit.latency for visit in level.visits] for name, level in levels.items()}
    bursts = {f"{name}, all answered": taken for name, taken in turns.items()}
    return Report(
        name="load",
        title="The server under load: latency and throughput of explanations, image and text",
        settings={
            "model": options.preset,
            "steps": options.steps,
            "steps as published": PUBLISHED.steps,
            "rows": PUBLISHED.samples,
            "threads": options.threads,
        },
        seconds={**latencies, **bursts},
        baseline=_name(NEW, 1),
        rows={name: _row(level) for name, level in levels.items()},
        findings={**_outside(levels[ONE_PUBLISHED].visits), **_throughput(turns)},
        panels=_panels(levels),
    )


def _row(level: Level) -> dict[str, Value]:
    p90, p99 = np.percentile([visit.latency for visit in level.visits], (90, 99))
    return {"90th percentile": duration(p90), "99th percentile": duration(p99), "requests per second": level.rate}


def _outside(visits: Sequence[Visit]) -> dict[str, Value]:
    """What a client alone with the server waits for besides the engine, as shares of its wait."""

    def share(seconds: Callable[[Visit], float]) -> str:
        return f"{statistics.median(seconds(visit) / visit.latency for visit in visits):.2%}"

    return {
        "time outside the engine at one client": share(lambda visit: visit.latency - visit.engine),
        "of it reading the request": share(lambda visit: visit.prepare),
        "of it maps and pictures": share(lambda visit: visit.render),
        "of it wire and client": share(lambda visit: visit.latency - visit.engine - visit.prepare - visit.render),
    }


def _throughput(turns: Mapping[str, Sequence[float]]) -> dict[str, Value]:
    """The server's throughput, of the engine's: of the medians, and of the turns next to one another."""
    by_turn = [alone / served for alone, served in zip(turns[ALONE], turns[SERVED], strict=True)]
    ratio = statistics.median(turns[ALONE]) / statistics.median(turns[SERVED])
    return {
        f"throughput with {MANY} clients, of the engine's own": f"{ratio:.1%}",
        "the same within one turn, lowest to highest": f"{min(by_turn):.1%} to {max(by_turn):.1%}",
    }


def _panels(levels: Mapping[str, Level]) -> list[Panel]:
    closed = {NEW: CLIENTS, REPEATED: CLIENTS_REPEATED}
    one = statistics.median(visit.latency for visit in levels[_name(NEW, 1)].visits)
    latencies = {
        images: [
            (clients, statistics.median(visit.latency for visit in levels[_name(images, clients)].visits) / one)
            for clients in numbers
        ]
        for images, numbers in closed.items()
    }
    rates = {
        images: [(clients, levels[_name(images, clients)].rate / levels[_name(NEW, 1)].rate) for clients in numbers]
        for images, numbers in closed.items()
    }
    return [
        Panel(x="clients", y="median latency, of that of one client", curves=latencies),
        Panel(x="clients", y="throughput, of that of one client", curves=rates),
    ]


if __name__ == "__main__":
    main()
