"""Owns what a person sees of a running export: one line a stage, with its time."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class StageProgress:
    """Shows the stages of an export as they start and end; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        """Take the console to show them on."""
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._current: TaskID | None = None

    def __enter__(self) -> Self:
        """Start to draw."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing; the last stage counts as done only without an error."""
        if error is None:
            self._finish()
        self._progress.stop()

    def start(self, stage: str) -> None:
        """End the stage before and show this one."""
        self._finish()
        self._current = self._progress.add_task(stage, total=1)

    def _finish(self) -> None:
        if self._current is not None:
            self._progress.update(self._current, completed=1)
            self._current = None
