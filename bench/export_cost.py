"""Measures what one export costs: wall time, processor time and peak memory of the exporter's process.

Run as `PYTHONPATH=tests python bench/export_cost.py --preset vit-b-32`.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checkpoints import PRESETS, write_checkpoint


def main() -> None:
    """Write a random checkpoint, export it in a process of its own and print the cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="vit-b-32")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "checkpoint", options.preset)
        package = Path(folder) / "package"
        started = time.perf_counter()
        command = [sys.executable, "-m", "m2ib_export", str(checkpoint), str(package)]
        subprocess.run([*command, "--threads", str(options.threads)], check=True)
        wall_seconds = time.perf_counter() - started
        size_bytes = sum(path.stat().st_size for path in package.iterdir())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{options.preset}: package of {size_bytes / 1e6:.0f} MB")
    print(f"wall {wall_seconds:.0f} s, processor {used.ru_utime + used.ru_stime:.0f} s")
    print(f"peak memory {used.ru_maxrss * 1024 / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
