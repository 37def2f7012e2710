"""Shows the progress of many pairs on the standard error; nothing where that is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console

from m2ib_client._many.pair import ManyProgress


@contextmanager
def shown_bar() -> Iterator[Callable[[ManyProgress], None]]:
    """Show a bar, and yield what to tell it."""
    console = Console(stderr=True)
    with rich.progress.Progress(
        rich.progress.TextColumn("pairs"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[failed]} failed"),
        rich.progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("pairs", total=None, failed=0)
        yield lambda told: bar.update(task, completed=told.done, total=told.total, failed=told.failed)
