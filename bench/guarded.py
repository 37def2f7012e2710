"""Times calls on a bare server and on one with everything that operators ask for, by turns: what trust costs a call.

    PYTHONPATH=tests python bench/guarded.py models/demo [--rounds N]

The second server has TLS, a token to be checked, an audit log whose every record reaches the disk, and metrics. Prints
a table with medians and the ratio, and keeps nothing.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from certificates import LOOPBACK, authority, issued
from m2ib_client import TLS, Client
from m2ib_server.access import tokens
from serving import running_server
from turns import Contender, take_turns
from wire import png

TEXT = "right mid zone mass"
LIGHT = 20  # calls of those that compute nothing, in one turn


def main() -> None:
    """Start both servers, let them take turns at each kind of call, and print a row for each kind."""
    options = _parse()
    with (
        tempfile.TemporaryDirectory() as folder,
        bare(options.models, Path(folder) / "bare") as plain,
        guarded(options.models, Path(folder) / "guarded") as watched,
    ):
        print("| call | bare, ms | guarded, ms | guarded over bare |\n|---|---|---|---|")
        for name, work in KINDS.items():
            contenders: dict[str, Contender] = {"bare": partial(work, plain), "guarded": partial(work, watched)}
            seconds = take_turns(contenders, rounds=options.rounds)
            first, second = (1000 * statistics.median(seconds[each]) for each in contenders)
            ratio = statistics.median(b / a for a, b in zip(seconds["bare"], seconds["guarded"], strict=True))
            print(f"| {name} | {first:.1f} | {second:.1f} | {ratio:.2f} |")


def describe(client: Client) -> None:
    """Ask for what is loaded: the wire and whatever surrounds a call, nothing else."""
    for _ in range(LIGHT):
        client.models()


def explain(client: Client, *, effort: Literal["fast", "published"], image: bytes) -> None:
    """Explain a pair."""
    client.explain(image, TEXT, effort=effort)


KINDS: Mapping[str, Callable[[Client], None]] = {
    f"{LIGHT} x ListModels": describe,
    "Explain, effort fast": partial(explain, effort="fast", image=png((224, 224), seed=1)),
    "Explain, effort published": partial(explain, effort="published", image=png((224, 224), seed=2)),
}


@contextmanager
def bare(models: Path, folder: Path) -> Iterator[Client]:
    """Run a server as it comes, and yield a client of it."""
    folder.mkdir()
    with running_server(models, folder) as server, Client(server.address) as client:
        yield client


@contextmanager
def guarded(models: Path, folder: Path) -> Iterator[Client]:
    """Run a server with everything, and yield a client that it lets in."""
    folder.mkdir()
    trusted = authority()
    issued(trusted, "server", *LOOPBACK).write(folder / "certificate", folder / "key")
    (folder / "ca").write_bytes(trusted.pem)
    (folder / "salt").write_bytes(bytes(range(32)))
    token, line = tokens.new_token("bench", ["explain"])
    tokens.write_tokens(folder / "tokens", {"bench": line})
    files = {"tls-certificate": "certificate", "tls-key": "key", "tokens": "tokens", "audit-salt-file": "salt"}
    flags = [word for flag, file in files.items() for word in (f"--{flag}", str(folder / file))]
    flags += ["--audit-log", str(folder / "audit.jsonl"), "--metrics-listen", "127.0.0.1:0"]
    with (
        running_server(models, folder, *flags) as server,
        Client(server.address, tls=TLS(ca=folder / "ca"), token=token) as client,
    ):
        yield client


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", type=Path, help="a folder with one model package")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each server at each kind of call")
    return parser.parse_args()


if __name__ == "__main__":
    main()
