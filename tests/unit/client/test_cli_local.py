"""Checks what `m2ib --local` shows while its private server starts: a line on a terminal, elsewhere nothing."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

STARTING = "starting a private server"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line, with the stand-in for the server where `python -m m2ib_server` is looked for."""
    package = tmp_path / "path" / "m2ib_server"
    package.mkdir(parents=True)
    program = Path(__file__).with_name("server_program.py").read_text(encoding="utf-8")
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(program, encoding="utf-8")
    found = os.pathsep.join([str(package.parent), *sys.path])
    monkeypatch.setenv("PYTHONPATH", found)
    return [sys.executable, "-m", "m2ib_client", "models", "--local", "--models", str(tmp_path)]


def told_to_terminal(command: list[str]) -> tuple[str, str]:
    """Run with a terminal as the standard error; return the standard output and what the terminal was sent."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as running:
        os.close(theirs)
        told = b""
        while part := read_terminal(ours):
            told += part
        out, _ = running.communicate()
    os.close(ours)
    assert running.returncode == 0, told
    return out.decode(), told.decode()


def read_terminal(descriptor: int) -> bytes:
    """What has come; nothing once the other end is closed, which Linux tells by an error."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def test_boot_is_shown_on_a_terminal(command: list[str]) -> None:
    out, told = told_to_terminal(command)
    assert STARTING in told
    assert out.startswith("fake 1")


def test_boot_is_not_shown_elsewhere(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert STARTING not in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stdout.startswith("fake 1")
