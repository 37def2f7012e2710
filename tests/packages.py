"""Exports packages as an operator would, in a process of its own."""

import subprocess
import sys
from pathlib import Path


def export(checkpoint: Path | str, package: Path, *flags: str) -> Path:
    command = [sys.executable, "-m", "m2ib_export", str(checkpoint), str(package), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return package
