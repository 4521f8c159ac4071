"""Progress output while stages run: one bar per stage on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from pipeline.shown import shown_lines

SECONDS_A_LINE = 10.0
"""Least seconds between two plain lines."""


Verbosity = Literal["quiet", "normal", "verbose"]
"""``quiet``: only notes. ``verbose``: also one line per committed file."""


class Progress:
    """Shows the progress of a stage."""

    def __init__(self, console: Console, verbosity: Verbosity = "normal") -> None:
        self._console = console
        self.verbosity = verbosity

    @contextmanager
    def stage(self, name: str, units: int, rows: int) -> Iterator[Callable[[int], None]]:
        """Show one stage of ``rows`` rows in ``units`` files.

        Call the yielded function with the rows done.
        """
        if self.verbosity == "quiet":
            yield lambda done: None
            return
        started = time.monotonic()
        show = self._bar if self._console.is_terminal else self._lines
        with show(name, units, rows) as advance:
            yield advance
        seconds = time.monotonic() - started
        rate = f"{rows / seconds:.1f} rows/s" if seconds > 0 else ""
        self._console.print(f"{name:10s} {rows} rows in {units} parts, {seconds:.1f} s, {rate}")

    def note(self, text: str) -> None:
        """Print a message on a line of its own, also in quiet mode."""
        self._console.print(Text(shown_lines(text)), soft_wrap=True)

    def detail(self, text: str) -> None:
        """Print a message in verbose mode only."""
        if self.verbosity == "verbose":
            self.note(text)

    @contextmanager
    def _bar(self, name: str, units: int, rows: int) -> Iterator[Callable[[int], None]]:
        columns = (
            TextColumn("{task.description:10s}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} rows", markup=False),
            _RateColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(name, total=rows)
            yield lambda done: bar.advance(task, done)

    @contextmanager
    def _lines(self, name: str, units: int, rows: int) -> Iterator[Callable[[int], None]]:
        started = printed = time.monotonic()
        done = 0

        def advance(more: int) -> None:
            nonlocal done, printed
            done += more
            now = time.monotonic()
            if done < rows and now - printed >= SECONDS_A_LINE and done:
                printed = now
                left = (rows - done) * (now - started) / done
                rate = done / (now - started)
                self._console.print(f"{name:10s} {done}/{rows} rows, {rate:.1f} rows/s, {left:.0f} s left")

        yield advance


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} rows/s" if task.speed else "")
