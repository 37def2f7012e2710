"""Owns the options of an encrypted connection and of the caller's token, which every command that connects has."""

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from m2ib_client._cli.options import SERVER_PANEL
from m2ib_client._errors import InvalidRequestError
from m2ib_client._secure import TLS, TokenSource

TOKEN_VARIABLE = "M2IB_TOKEN"  # noqa: S105 - its name; there is no option for the token itself, others would see it

Given = ParamSpec("Given")
Done = TypeVar("Done")


def _file(name: str, variable: str, help_text: str) -> Any:
    option = typer.Option(
        name,
        envvar=variable,
        metavar="FILE",
        help=help_text,
        exists=True,
        dir_okay=False,
        readable=True,
        rich_help_panel=SERVER_PANEL,
    )
    return Annotated[Path | None, option]


OPTIONS: dict[str, tuple[Any, object]] = {
    "tls": (
        Annotated[bool, typer.Option("--tls", envvar="M2IB_TLS", help="Encrypt.", rich_help_panel=SERVER_PANEL)],
        False,
    ),
    "tls_ca": (_file("--tls-ca", "M2IB_TLS_CA", "PEM file of the server's authority; the public ones without."), None),
    "tls_certificate": (
        _file("--tls-certificate", "M2IB_CLIENT_CERTIFICATE", "PEM file of our own certificate."),
        None,
    ),
    "tls_key": (_file("--tls-key", "M2IB_CLIENT_KEY", "PEM file of its key."), None),
    "tls_server_name": (
        Annotated[
            str,
            typer.Option(
                envvar="M2IB_TLS_SERVER_NAME",
                metavar="NAME",
                help="The name in the server's certificate, if not the address's.",
                rich_help_panel=SERVER_PANEL,
            ),
        ],
        "",
    ),
    "token_file": (
        _file("--token-file", "M2IB_TOKEN_FILE", f"File that holds the token; {TOKEN_VARIABLE} may hold it instead."),
        None,
    ),
}


def secured(command: Callable[Given, Done]) -> Callable[Given, Done]:
    """Give a command these options; the command itself need not know, `tls_of` and `token_of` read the context."""

    @wraps(command)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Done:
        own = {name: value for name, value in kwargs.items() if name not in OPTIONS}
        return command(*args, **own)  # type: ignore[arg-type]

    signature = inspect.signature(command)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in OPTIONS.items()
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **{name: kind for name, (kind, _) in OPTIONS.items()}}
    return run


def tls_of(context: typer.Context) -> TLS | bool:
    """Return the encryption that a command's options ask for; any file for it asks for it."""
    given = context.params
    tls = TLS(
        ca=given.get("tls_ca"),
        certificate=given.get("tls_certificate"),
        key=given.get("tls_key"),
        server_name=given.get("tls_server_name") or None,
    )
    return tls if given.get("tls") or tls != TLS() else False


def token_of(context: typer.Context) -> TokenSource | None:
    """Return the token: that of the file, read anew for each call, or the variable's."""
    file: Path | None = context.params.get("token_file")
    if file is not None:
        return lambda: _read(file)
    return os.environ.get(TOKEN_VARIABLE) or None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError.of("token", seen=type(error).__name__, allowed="a readable --token-file") from error
