"""Owns the choice between a server that runs and a private one."""

from pathlib import Path

import typer
from rich.console import Console

from m2ib_client._async_client import AsyncClient
from m2ib_client._channel import MEBIBYTE
from m2ib_client._cli.progress import booting
from m2ib_client._cli.security import tls_of, token_of
from m2ib_client._client import Client


def connect(context: typer.Context) -> Client:
    """Return a client of the server that a command's options name; every command declares the same six for it.

    Those of encryption and the token come with `secured`; a private server needs neither. Commands for operators have
    none for a private server, which is nobody else's.

    Raises:
        typer.BadParameter: the options contradict each other.
        M2IBError: the address or the timeout is wrong, or the private server did not start.
    """
    given = context.params
    timeout, limit = float(given["timeout"]), int(given["max_message_mebibytes"]) * MEBIBYTE
    if not given.get("local"):
        _refuse_local_options(context)
        tls, token = tls_of(context), token_of(context)
        return Client(given["server"], timeout=timeout, max_message_bytes=limit, tls=tls, token=token)
    if _is_given(context, "server"):
        raise typer.BadParameter("--server and --local exclude each other")
    if given["models"] is None:
        raise typer.BadParameter("--local needs --models DIR")
    with booting(Console(stderr=True)):
        return Client.local(
            models=Path(given["models"]), device=given["device"], timeout=timeout, max_message_bytes=limit
        )


def connect_async(context: typer.Context) -> AsyncClient:
    """Return an asyncio client of the running server that a command's options name.

    Raises:
        M2IBError: the address is wrong.
    """
    given = context.params
    limit = int(given["max_message_mebibytes"]) * MEBIBYTE
    return AsyncClient(given["server"], max_message_bytes=limit, tls=tls_of(context), token=token_of(context))


def _refuse_local_options(context: typer.Context) -> None:
    for name in ("models", "device"):
        if _is_given(context, name):
            raise typer.BadParameter(f"--{name} is for --local only; a running server has its own")


def _is_given(context: typer.Context, name: str) -> bool:
    """Tell whether the option stands on the command line; the environment does not count."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
