"""The commands `m2ib-server token add|list|remove`, which keep the file of static tokens."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from m2ib_server.access import tokens
from m2ib_server.access.identity import ADMIN, EXPLAIN
from m2ib_server.errors import AccessFileUnusable

token_app = typer.Typer(
    help="Keep the file of static tokens. A running server heeds a change with the next call.", no_args_is_help=True
)


class ScopeChoice(StrEnum):
    """What a caller may be allowed."""

    EXPLAIN = EXPLAIN
    ADMIN = ADMIN


TokenFile = Annotated[
    Path,
    typer.Option("--file", envvar="M2IB_TOKENS", dir_okay=False, help="The file of tokens; made if it is not there."),
]


def _caller_name(value: str) -> str:
    if not tokens.is_token_name(value):
        allowed = f"up to {tokens.MAX_NAME_CHARACTERS} of A-Z a-z 0-9 _ -, first a letter or digit"
        raise typer.BadParameter(f"seen {len(value)} characters; allowed: {allowed}")
    return value


Name = Annotated[
    str, typer.Argument(callback=_caller_name, help="The caller's name in logs; a system or role, no patient.")
]


@token_app.command()
def add(
    name: Name,
    file: TokenFile,
    scope: Annotated[list[ScopeChoice], typer.Option(help="What it may do; may be given twice.")],
    replace: Annotated[bool, typer.Option("--replace", help="Give a caller that has a token another one.")] = False,
) -> None:
    """Make a token for a caller and print it, this once: the file keeps only its salted hash."""
    lines = _read(file)
    if name in lines and not replace:
        raise typer.BadParameter("this caller has a token; --replace gives it another, and the old one ends")
    token, line = tokens.new_token(name, [each.value for each in scope])
    _write(file, {**lines, name: line})
    typer.echo(token)


@token_app.command(name="list")
def list_callers(file: TokenFile) -> None:
    """Show the callers that have a token, and their scopes."""
    for line in _read(file).values():
        typer.echo(f"{line.name}\t{','.join(sorted(line.scopes))}")


@token_app.command()
def remove(name: Name, file: TokenFile) -> None:
    """End a caller's token."""
    lines = _read(file)
    if name not in lines:
        raise typer.BadParameter("no caller of this name has a token")
    _write(file, {kept: line for kept, line in lines.items() if kept != name})


def _read(file: Path) -> dict[str, tokens.TokenLine]:
    if not file.exists():
        return {}
    try:
        return tokens.read_tokens(file)
    except AccessFileUnusable as error:
        raise typer.BadParameter(str(error), param_hint="--file") from error


def _write(file: Path, lines: dict[str, tokens.TokenLine]) -> None:
    try:
        tokens.write_tokens(file, lines)
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="--file") from error
