"""Stands in for `python -m m2ib_server`: takes the same flags, serves the fake, and ends with its standard input."""

import argparse
import os
import sys
import time
from pathlib import Path

from m2ib_client.testing import serve_fake


def note_pid(folder: Path) -> None:
    """Write the process id into `pid`, which appears with all of it or not at all."""
    part = folder / "pid.part"
    part.write_text(str(os.getpid()), encoding="ascii")
    part.rename(folder / "pid")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--models", required=True)
    parser.add_argument("--listen", required=True, choices=["127.0.0.1:0"])
    parser.add_argument("--device", required=True, choices=["cpu", "cuda", "broken", "silent", "deaf"])
    parser.add_argument("--ready-file", required=True, type=Path)
    parser.add_argument("--exit-with-stdin", required=True, action="store_true")
    parser.add_argument("--max-message-mebibytes", required=True)
    options = parser.parse_args()
    Path(options.models, "arguments").write_text("\n".join(sys.argv), encoding="utf-8")
    if options.device == "broken":
        print("reading the package\nthe package is corrupt", file=sys.stderr)
        return 3
    note_pid(Path(options.models))
    if options.device == "silent":
        time.sleep(60)
    with serve_fake() as fake:
        written = options.ready_file.with_suffix(".part")
        written.write_text(f"{fake.address}\n", encoding="ascii")
        written.rename(options.ready_file)
        sys.stdin.read()
        if options.device == "deaf":
            time.sleep(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
