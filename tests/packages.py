"""Exports packages as an operator would, in a process of its own; what nothing has changed is kept."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"


def export(checkpoint: Path | str, package: Path, *flags: str, kept: Path | None = None) -> Path:
    """Export a checkpoint; with a folder of kept packages, copy from there what was exported of the very same.

    Who asks for what is being exported waits for it.
    """
    if kept is None:
        return _export(checkpoint, package, flags)
    original = kept / _digest(checkpoint, flags)
    with _alone(original.with_suffix(".lock")):
        if not (original / "manifest.json").exists():
            shutil.rmtree(original, ignore_errors=True)
            _export(checkpoint, original, flags)
    shutil.copytree(original, package)
    return package


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep others out, in this process and others, while the body lasts."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _export(checkpoint: Path | str, package: Path, flags: tuple[str, ...]) -> Path:
    command = [sys.executable, "-m", "m2ib_export", str(checkpoint), str(package), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return package


def _digest(checkpoint: Path | str, flags: tuple[str, ...]) -> str:
    """Digest everything that an export depends on: the exporter, the contract, the pinned libraries, the checkpoint."""
    code = [Path(place) for name in ("m2ib_export", "m2ib") for place in find_spec(name).submodule_search_locations]
    digest = hashlib.sha256(repr((str(checkpoint) if isinstance(checkpoint, str) else "", flags)).encode())
    for root in (*code, CONSTRAINTS, *([checkpoint] if isinstance(checkpoint, Path) else [])):
        paths = sorted(root.rglob("*")) if root.is_dir() else [root]
        for path in paths:
            if path.is_file() and not {"__pycache__", "oip"} & set(path.parts):  # oip: for servers alone
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
