"""Checks the life of a private server: it starts, says why it does not, and never outlives its client."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import m2ib_client
from m2ib_client import AsyncClient, Client, LocalServerError, MissingPackageError
from m2ib_client._local import LocalServer, server_program

PROGRAM = (sys.executable, str(Path(__file__).with_name("server_program.py")))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ends_soon(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


def test_server_starts_answers_and_ends(tmp_path: Path) -> None:
    server = LocalServer(models=tmp_path, program=PROGRAM)
    with Client(server.start()) as client:
        assert client.model().name == "fake"
    pid = int((tmp_path / "pid").read_text())
    assert is_running(pid)
    server.stop()
    server.stop()
    assert not is_running(pid)


def test_server_does_not_outlive_a_killed_client(tmp_path: Path) -> None:
    program = (
        "import sys, time; from m2ib_client._local import LocalServer; "
        f"LocalServer(models={str(tmp_path)!r}, program={PROGRAM!r}).start(); print('up', flush=True); time.sleep(60)"
    )
    caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    assert caller.stdout.readline() == b"up\n"
    pid = int((tmp_path / "pid").read_text())
    caller.send_signal(signal.SIGKILL)
    caller.communicate()
    assert ends_soon(pid)


def test_server_that_ends_early_is_quoted(tmp_path: Path) -> None:
    server = LocalServer(models=tmp_path, device="broken", program=PROGRAM)
    with pytest.raises(LocalServerError, match=r"status 3(.|\n)*the package is corrupt"):
        server.start()


def test_server_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    server = LocalServer(models=tmp_path, device="silent", boot_timeout=0.3, patience=0.1, program=PROGRAM)
    before = time.monotonic()
    with pytest.raises(LocalServerError, match=r"not ready after 0\.3 s"):
        server.start()
    assert time.monotonic() - before < 5


def test_server_that_ignores_its_pipe_is_ended_by_a_signal(tmp_path: Path) -> None:
    server = LocalServer(models=tmp_path, device="deaf", patience=0.2, program=PROGRAM)
    server.start()
    pid = int((tmp_path / "pid").read_text())
    server.stop()
    assert not is_running(pid)


def async_client(folder: Path, device: str) -> AsyncClient:
    client = AsyncClient.local(models=folder)
    client._server = LocalServer(models=folder, device=device, patience=0.2, program=PROGRAM)
    return client


async def opened(client: AsyncClient) -> None:
    async with client:
        await asyncio.sleep(60)


async def pid_of_boot(folder: Path) -> int:
    while not (folder / "pid").exists():  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.02)
    return int((folder / "pid").read_text())


@pytest.mark.parametrize("cancels", [1, 3])
def test_cancelled_boot_leaves_no_server(tmp_path: Path, cancels: int) -> None:
    async def cancel_during_boot() -> int:
        opening = asyncio.create_task(opened(async_client(tmp_path, "silent")))
        pid = await pid_of_boot(tmp_path)
        for _ in range(cancels):
            opening.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await opening
        return pid

    before = time.monotonic()
    assert not is_running(asyncio.run(cancel_during_boot()))
    assert time.monotonic() - before < 30


def test_loop_that_ends_during_boot_leaves_no_server(tmp_path: Path) -> None:
    async def leave_during_boot() -> tuple[int, asyncio.Task[None]]:
        opening = asyncio.create_task(opened(async_client(tmp_path, "silent")))
        return await pid_of_boot(tmp_path), opening

    pid, opening = asyncio.run(leave_during_boot())
    assert opening.cancelled()
    assert not is_running(pid)


def test_client_can_start_again_after_a_cancelled_boot(tmp_path: Path) -> None:
    async def cancel_and_open() -> str:
        client = async_client(tmp_path, "cpu")
        first = asyncio.create_task(client.model())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        try:
            return (await client.model()).name
        finally:
            await client.close()

    assert asyncio.run(cancel_and_open()) == "fake"


def test_private_server_takes_messages_as_large_as_its_client(tmp_path: Path) -> None:
    server = LocalServer(models=tmp_path, max_message_bytes=100_000_000, program=PROGRAM)
    server.start()
    server.stop()
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[arguments.index("--max-message-mebibytes") + 1] == "96"


def test_missing_server_is_named() -> None:
    with pytest.raises(MissingPackageError, match=r"pip install 'm2ib-server\[cpu\]'"):
        server_program("m2ib_server_that_is_not_there")


def test_program_that_cannot_run_leaves_nothing_behind(tmp_path: Path) -> None:
    server = LocalServer(models=tmp_path, program=[str(tmp_path / "absent")])
    with pytest.raises(FileNotFoundError):
        server.start()
    server.stop()


def test_bad_timeout_starts_no_server(tmp_path: Path) -> None:
    with pytest.raises(m2ib_client.InvalidRequestError, match="timeout"):
        Client.local(models=tmp_path / "absent", timeout=-1)
