"""Measures what a loaded model takes in memory, beside the estimate by which the server decides whether it fits.

Run as `PYTHONPATH=tests python bench/model_memory.py FIRST PACKAGE...`, with the folders of packages. FIRST is loaded
before each of the others, so that what a process takes for its first model of all counts for none.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from m2ib_server.bootstrap import build_engine
from m2ib_server.engine import Fleet
from m2ib_server.package import read_manifest
from m2ib_server.repository import Loader
from m2ib_server.runtime import DeviceKind, open_device
from m2ib_server.settings import ServerSettings
from vitals import vitals_of

MEGABYTE = 1_000_000


def main() -> None:
    """Load each package in a process of its own and print a line of Markdown for it."""
    options = _parse()
    if options.child:
        print(_growth(options.first, options.packages[0]))
        return
    print("| package | files, MB | estimate, MB | measured, MB | measured, of the estimate |\n|---|---|---|---|---|")
    for folder in options.packages:
        manifest, _ = read_manifest(folder)
        files = sum(packaged.size_bytes for packaged in manifest.files)
        command = [sys.executable, __file__, "--child", str(options.first), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        estimate, measured = map(int, done.stdout.split()[-2:])
        figures = " | ".join(f"{size / MEGABYTE:.0f}" for size in (files, estimate, measured))
        print(f"| {manifest.name}, {manifest.precision} | {figures} | {measured / estimate:.2f} |")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path, help="a package's folder")
    parser.add_argument("packages", type=Path, nargs="+", help="packages' folders")
    parser.add_argument("--child", action="store_true", help="load the two and print two numbers of bytes")
    return parser.parse_args()


def _growth(first: Path, folder: Path) -> str:
    """Load two packages; return the estimate for the second, and by how much the process grew with it, in bytes."""
    device = open_device(DeviceKind.CPU, threads=2)
    engine = build_engine(device, ServerSettings(models=folder, listen="", device="cpu", threads=2))
    fleet = Fleet([engine])
    loader = Loader(fleet, DeviceKind.CPU)
    fleet.start()
    loader.load(first, read_manifest(first)[1])
    before = vitals_of(os.getpid()).resident_bytes
    model = loader.load(folder, read_manifest(folder)[1])
    after = vitals_of(os.getpid()).resident_bytes
    fleet.close()
    return f"{loader.estimate(model.manifest)} {after - before}"


if __name__ == "__main__":
    main()
