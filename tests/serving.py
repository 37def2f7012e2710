"""Starts the real server in a process of its own, on loopback and a free port, and stops it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BOOT_SECONDS = 120
STOP_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server that is ready."""

    address: str
    process: subprocess.Popen
    log_path: Path

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict]:
        """Return the log's lines of one event."""
        return [line for line in map(json.loads, self.log().splitlines()) if line["event"] == name]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STOP_SECONDS)


@contextmanager
def running_server(models: Path, folder: Path, *flags: str, **variables: str) -> Iterator[RunningServer]:
    ready, log = folder / "ready", folder / "server.log"
    command = [sys.executable, "-m", "m2ib_server", "serve", "--models", str(models), "--listen", "127.0.0.1:0"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready), *flags],
            stderr=stream,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **variables},
        )
    try:
        deadline = time.monotonic() + BOOT_SECONDS
        while not ready.exists():
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "the server is not ready in time"
            time.sleep(0.05)
        yield RunningServer(address=ready.read_text(encoding="ascii"), process=process, log_path=log)
    finally:
        process.kill()
        process.wait()
