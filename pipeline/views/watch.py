"""``editpairs status --watch``: a live view of a run, read from its files only."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.live import Live
from rich.text import Text

from pipeline.engine.ledger import StageCount, count_run
from pipeline.engine.state import RunState
from pipeline.shown import DataTable, Terminal, brief, shown
from pipeline.store import events
from pipeline.store.folder import RunFolder
from pipeline.store.location import Location
from pipeline.views.run import has_begun, open_state

RECENT = 16
"""Number of latest files from which the pace is computed."""
TOP_REASONS = 2
PAUSE = 9
"""The pause after a look, as a multiple of its duration: looking takes at most a tenth of one core's time."""


@dataclass(frozen=True)
class Pace:
    """Recent speed of a stage, all workers together, in rows per second; 0 for a stage without work."""

    rows_a_second: float

    def left(self, rows: int) -> str:
        """Time for ``rows`` rows at this pace, such as ``1:04:30``."""
        if not rows:
            return ""
        if not self.rows_a_second:
            return "?"
        minutes, seconds = divmod(round(rows / self.rows_a_second), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}"


class Paces:
    """The pace of each stage over its latest files. ``events.jsonl`` is read from the last position on."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._read = 0
        self._recent: dict[str, deque[tuple[int, float]]] = {}

    def now(self) -> dict[str, Pace]:
        for end, event in events.read(self._folder.events, self._read):
            self._read = end
            if "wall" in event:
                files = self._recent.setdefault(event["stage"], deque(maxlen=RECENT))
                files.append((event["rows"], event["wall"]))
        return {
            stage: Pace(sum(rows for rows, _ in files) / max(1e-3, sum(wall for _, wall in files)))
            for stage, files in self._recent.items()
        }


def watch(folder: str | Location, console: Terminal, every: float = 2.0) -> None:
    """Show a live table until no row is pending, or until Ctrl-C; first wait for the run to begin.

    Args:
        folder: of the run, which need not be there yet.
        every: seconds between two looks.

    Raises:
        OSError, UserError: the run is there and cannot be read.
    """
    if not has_begun(folder):
        console.print(f"waiting for a run to begin at {folder}; Ctrl-C ends this", soft_wrap=True)
    while not has_begun(folder):
        time.sleep(every)
    _show(open_state(folder), console, every)


def _show(state: RunState, console: Terminal, every: float) -> None:
    paces = Paces(state.folder)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            started = time.monotonic()
            state.scan()
            counts = count_run(state)
            live.update(progress_table(state.folder, counts, paces.now()), refresh=True)
            if not any(count.pending.total() for count in counts):
                return
            time.sleep(max(every, PAUSE * (time.monotonic() - started)))


def progress_table(folder: RunFolder, counts: Sequence[StageCount], paces: Mapping[str, Pace]) -> DataTable:
    """One line per stage: parts, pace, time left, share kept, and the most frequent reasons."""
    table = DataTable(title=Text(shown(str(folder.root))), title_justify="left", box=None, pad_edge=False)
    for name in ("stage", "parts", "rows/s", "left", "kept", "failed", "why not"):
        table.add_column(name, justify="left" if name in ("stage", "why not") else "right")
    for count in counts:
        judged = count.given.total() - count.pending.total()
        pace = paces.get(count.name, Pace(0))
        table.add_row(
            count.name,
            f"{count.units_done}/{count.units}",
            f"{pace.rows_a_second:.1f}" if pace.rows_a_second else "",
            pace.left(count.pending.total()),
            f"{count.kept.total() / judged:.0%}" if judged else "",
            str(count.failed.total() or ""),
            _reasons(count),
        )
    return table


def _reasons(count: StageCount) -> str:
    ordered = sorted(count.reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{brief(reason, 40)} {rows}" for (_, reason), rows in ordered[:TOP_REASONS])
