"""A server that keeps an audit log, and what the log then holds."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving import RunningServer, running_server


@dataclass(frozen=True, kw_only=True)
class AuditedServer:
    """A running server and its audit log."""

    running: RunningServer
    log: Path

    def records(self, kind: str = "call") -> list[dict]:
        """Return the records of a kind; a line that was cut short is none."""
        lines = self.log.read_text().splitlines()
        return [each for each in (json.loads(line) for line in lines if line.endswith("}")) if each["kind"] == kind]

    def verify(self, *flags: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "m2ib_server", "audit", "verify", str(self.log), *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def audited_server(models: Path, folder: Path, *flags: str) -> Iterator[AuditedServer]:
    key, log = folder / "audit.key", folder / "audit.jsonl"
    key.write_bytes(b"0123456789abcdef" * 2)
    audit = ("--audit-log", str(log), "--audit-salt-file", str(key))
    with running_server(models, folder, *audit, *flags) as running:
        yield AuditedServer(running=running, log=log)
