"""Owns a private server: a process of this one, on this machine only, that ends with it however it ends."""

import asyncio
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from m2ib_client._channel import MAX_MESSAGE_BYTES, MEBIBYTE
from m2ib_client._errors import LocalServerError, MissingPackageError

DEFAULT_BOOT_TIMEOUT_SECONDS = 120.0
POLL_SECONDS = 0.02
STOP_SECONDS = 10.0
KILL_SECONDS = 5.0
LAST_WORDS_LINES = 12
LAST_WORDS_BYTES = 16_384
SERVER_MODULE = "m2ib_server"
# What the environment may say of another server, one that a network reaches, is not meant for a private one.
NOT_INHERITED = ("M2IB_TLS_", "M2IB_TOKENS", "M2IB_JWT_", "M2IB_CERTIFICATE_", "M2IB_HEALTH_LISTEN")


def server_program(module: str = SERVER_MODULE) -> tuple[str, ...]:
    """Return the command that runs the server's program.

    Raises:
        MissingPackageError: the server is not installed beside the client.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingPackageError("a private server needs the server beside the client: pip install 'm2ib-server[cpu]'")
    return (sys.executable, "-m", module)


class LocalServer:
    """A server in a process of its own, started once and stopped once.

    The process holds the reading end of a pipe whose writing end is ours: when this process ends, killed or
    not, the pipe closes and the server follows.
    """

    def __init__(
        self,
        *,
        models: str | os.PathLike[str],
        device: str = "cpu",
        boot_timeout: float = DEFAULT_BOOT_TIMEOUT_SECONDS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        program: Sequence[str] | None = None,
        patience: float = STOP_SECONDS,
    ) -> None:
        """Keep what to start.

        `max_message_bytes` is what the client sends and takes at most; the server takes no less. `program` replaces
        the installed server's command; `patience` is how long the server may take to end by itself, in seconds.
        """
        self._models = os.fspath(models)
        self._device = device
        self._boot_timeout = boot_timeout
        self._max_message_bytes = max_message_bytes
        self._program = program
        self._patience = patience
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, unwanted: threading.Event | None = None) -> str:
        """Start the server, wait until it is ready and return its address; give up once `unwanted` is set.

        Raises:
            LocalServerError: it ended, took longer than `boot_timeout` seconds or was given up.
            MissingPackageError: it is not installed.
        """
        program = self._program or server_program()
        self._folder = tempfile.TemporaryDirectory(prefix="m2ib-")
        try:
            with self._log_file.open("wb") as log:
                command = self._command(program)
                self._process = subprocess.Popen(  # noqa: S603 - our own program, through no shell
                    command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=_environment()
                )
            return self._await_ready(self._process, unwanted or threading.Event())
        except BaseException:
            self.stop()
            raise

    async def start_async(self) -> str:
        """Start as `start` does, in a thread; whoever is cancelled meanwhile leaves no server behind."""
        unwanted = threading.Event()
        # A future of the executor and no task: a loop that ends cancels its tasks, and a thread heeds no cancelling.
        starting = asyncio.get_running_loop().run_in_executor(None, self.start, unwanted)
        try:
            await asyncio.wait({starting})
        except asyncio.CancelledError:
            unwanted.set()
            await _outlasted(starting)
            await _outlasted(asyncio.get_running_loop().run_in_executor(None, self.stop))
            raise
        return starting.result()

    def stop(self) -> None:
        """End the server: first by closing its pipe, then by signals. May be called twice."""
        if self._process is not None:
            _end(self._process, self._patience)
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _command(self, program: Sequence[str]) -> list[str]:
        ready = str(self._ready_file)
        listen = ["--listen", "127.0.0.1:0", "--ready-file", ready, "--exit-with-stdin"]
        mebibytes = math.ceil(max(self._max_message_bytes, MAX_MESSAGE_BYTES) / MEBIBYTE)
        limits = ["--max-message-mebibytes", str(mebibytes)]
        return [*program, "serve", "--models", self._models, "--device", self._device, *listen, *limits]

    def _await_ready(self, process: subprocess.Popen[bytes], unwanted: threading.Event) -> str:
        deadline = time.monotonic() + self._boot_timeout
        while time.monotonic() < deadline:
            if self._ready_file.exists():
                return self._ready_file.read_text(encoding="utf-8").strip()
            if process.poll() is not None:
                raise LocalServerError(f"the server ended with status {process.returncode}{self._last_words()}")
            if unwanted.wait(POLL_SECONDS):
                raise LocalServerError("the server's start was given up")
        raise LocalServerError(f"the server was not ready after {self._boot_timeout:g} s{self._last_words()}")

    def _last_words(self) -> str:
        written = self._log_file.read_bytes()[-LAST_WORDS_BYTES:].decode("utf-8", errors="replace")
        lines = written.strip().splitlines()[-LAST_WORDS_LINES:]
        return ":\n" + "\n".join(lines) if lines else ""

    @property
    def _ready_file(self) -> Path:
        return self._path("ready")

    @property
    def _log_file(self) -> Path:
        return self._path("server.log")

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise LocalServerError("the server was not started")
        return Path(self._folder.name, name)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}


async def _outlasted(work: asyncio.Future[Any]) -> None:
    """Wait until the work is done, well or badly, however often the waiting is cancelled."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    work.exception()


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if _has_ended(process, patience):
        return
    process.terminate()
    if not _has_ended(process, KILL_SECONDS):
        process.kill()
        process.wait()


def _has_ended(process: subprocess.Popen[bytes], patience_seconds: float) -> bool:
    try:
        process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
