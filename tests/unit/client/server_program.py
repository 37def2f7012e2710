"""Stands in for `python -m m2ib_server`: takes the same flags, serves the fake, and ends with its standard input."""

import argparse
import os
import sys
import time
from pathlib import Path

from m2ib_client.testing import serve_fake


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--models", required=True)
    parser.add_argument("--listen", required=True, choices=["127.0.0.1:0"])
    parser.add_argument("--device", required=True, choices=["cpu", "cuda", "broken", "silent", "deaf"])
    parser.add_argument("--ready-file", required=True, type=Path)
    parser.add_argument("--exit-with-stdin", required=True, action="store_true")
    options = parser.parse_args()
    if options.device == "broken":
        print("reading the package\nthe package is corrupt", file=sys.stderr)
        return 3
    if options.device == "silent":
        time.sleep(60)
    Path(options.models, "pid").write_text(str(os.getpid()), encoding="ascii")
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
