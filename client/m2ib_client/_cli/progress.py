"""Shows a private server's start and an explanation's steps on the standard error, where that is a terminal."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import rich.progress
from rich.console import Console

from m2ib_client._errors import IncompatibleServerError
from m2ib_client._results import Explanation, Progress


def booting(console: Console) -> AbstractContextManager[object]:
    """Show that a private server is starting, as long as the body runs."""
    if not console.is_terminal:
        return nullcontext()
    return console.status("starting a private server and loading its models")


def followed(events: Iterator[Progress | Explanation]) -> Explanation:
    """Show the events as they come and return the explanation at their end."""
    console = Console(stderr=True)
    with _bars(console) as bars:
        tasks: dict[str, rich.progress.TaskID] = {}
        for event in events:
            if isinstance(event, Explanation):
                return event
            if event.side not in tasks:
                tasks[event.side] = bars.add_task(event.side, total=event.steps, told="")
            told = f"similarity {event.similarity:.3f}, {event.bits_kept:.1f} bits kept"
            bars.update(tasks[event.side], completed=event.step, told=told)
    raise IncompatibleServerError("the stream ended without an explanation")


def _bars(console: Console) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description:>5}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[told]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
