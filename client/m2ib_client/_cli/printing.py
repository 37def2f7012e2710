"""Prints answers on the standard output, and nothing else there."""

import json
from collections.abc import Iterable

import typer
from rich.console import Console
from rich.text import Text


def print_lines(lines: Iterable[Text]) -> None:
    """Print lines for a reader."""
    console = Console(soft_wrap=True, highlight=False)
    for line in lines:
        console.print(line)


def print_json(answer: object) -> None:
    """Print an answer for a program."""
    typer.echo(json.dumps(answer, ensure_ascii=False, allow_nan=False))
