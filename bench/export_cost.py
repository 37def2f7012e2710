"""Measures what one export costs: wall time, processor time and peak memory of the exporter's process.

Run as `PYTHONPATH=tests python bench/export_cost.py --preset vit-b-32`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Report
from subject import add_arguments, prepare


def main() -> None:
    """Export the checkpoint in a process of its own and report the cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    options = parser.parse_args()
    checkpoint = prepare(options.packages, options.preset).checkpoint
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package"
        command = [sys.executable, "-m", "m2ib_export", str(checkpoint), str(package)]
        started = time.perf_counter()
        process = subprocess.Popen([*command, "--threads", str(options.threads)])
        _, status, used = os.wait4(process.pid, 0)  # this child's use alone
        seconds = time.perf_counter() - started
        if status != 0:
            raise RuntimeError(f"the exporter ended with status {os.waitstatus_to_exitcode(status)}")
        size_bytes = sum(path.stat().st_size for path in package.iterdir())
    report = Report(
        name="export_cost",
        title="One export of a checkpoint to a package",
        settings={"model": options.preset, "threads": options.threads},
        seconds={"export": [seconds]},
        baseline="export",
        findings={
            "processor time, seconds": used.ru_utime + used.ru_stime,
            "peak memory, GB": used.ru_maxrss * 1024 / 1e9,
            "package, MB": size_bytes / 1e6,
        },
    )
    report.write(options.out)


if __name__ == "__main__":
    main()
