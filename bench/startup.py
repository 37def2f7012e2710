"""Times the server from the start of its process to ready, and the parts of that which can be timed alone.

The files are in the page cache. Run as `PYTHONPATH=tests python bench/startup.py`.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from m2ib_server.engine import DeviceModel
from m2ib_server.package import open_package
from m2ib_server.runtime import DeviceKind, open_device
from report import Report
from serving import running_server
from subject import Subject, add_arguments, prepare
from turns import Contender, take_turns

READY = "process start to ready"


def main() -> None:
    """Start the server again and again, and report."""
    options = _parse()
    subject = prepare(options.packages, options.preset)
    parts = _parts(subject, options.threads)
    seconds: dict[str, list[float]] = {name: [] for name in (READY, *parts)}
    _boot(subject, options.threads)  # brings the files into the page cache
    for _ in range(options.rounds):
        seconds[READY].append(_boot(subject, options.threads))
        for name, taken in take_turns(parts, rounds=1, warm_up=0).items():
            seconds[name] += taken
    size_bytes = sum(path.stat().st_size for path in subject.package.iterdir())
    report = Report(
        name="startup",
        title="From the start of the server's process to ready",
        settings={"model": subject.preset, "package in MB": round(size_bytes / 1e6), "threads": options.threads},
        seconds=seconds,
        baseline=READY,
    )
    report.write(options.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _boot(subject: Subject, threads: int) -> float:
    """Start a server, wait until it is ready, end it; return the seconds until ready, to some 50 ms."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with running_server(subject.models, Path(folder), "--threads", str(threads)):
            return time.perf_counter() - started


def _parts(subject: Subject, threads: int) -> dict[str, Contender]:
    """What a start does in turn; the warm-up and the port are what is missing."""
    package = open_package(subject.package)
    device = open_device(DeviceKind.CPU, threads=threads)
    imports = [sys.executable, "-c", "import m2ib_server.bootstrap"]
    return {
        "of it: starting Python and importing": functools.partial(subprocess.run, imports, check=True),
        "of it: checking the package's digests": functools.partial(open_package, subject.package),
        "of it: loading the graphs": functools.partial(DeviceModel, package, device),
    }


if __name__ == "__main__":
    main()
