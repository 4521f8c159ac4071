"""The state of a run as plain data: ``run.status()`` in Python, ``editpairs status --json`` in a shell.

The JSON has the fields of :class:`RunStatus`. ``version`` is raised when a field is renamed, removed or
changes its meaning; new fields do not raise it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pipeline.engine.ledger import StageCount, count_run, published
from pipeline.engine.state import RunState
from pipeline.store import events
from pipeline.store.events import Spent
from pipeline.views.pruned import pruned_lines

VERSION = 1


@dataclass(frozen=True)
class RowCounts:
    """Rows of a stage. ``given`` is always the sum of the other four."""

    given: int
    kept: int
    rejected: int
    failed: int
    pending: int


@dataclass(frozen=True)
class LostRows:
    """Rows that a stage rejected or failed for the same reason."""

    status: str
    """``rejected`` or ``failed``."""
    reason: str
    rows: int


@dataclass(frozen=True)
class StageStatus:
    """The progress of one stage."""

    name: str
    """Name of the step; in the second turn of a session ``edit.2``."""
    parts: int
    """Number of files that the stage will have written at the end of the run."""
    parts_done: int
    rows: RowCounts
    tasks: Mapping[str, RowCounts]
    """The same by planned task."""
    lost: tuple[LostRows, ...]
    """Most frequent reason first."""
    wall_seconds: float
    cpu_seconds: float
    gpu_seconds: float
    """Worker seconds times the number of GPUs per worker."""


@dataclass(frozen=True)
class RunStatus:
    """The state of every planned row of a run."""

    version: int
    """Version of this layout: ``VERSION``."""
    folder: str
    captions: int
    """Captions read, including duplicates."""
    duplicates: int
    """Captions left out because they occurred before."""
    planned: int
    """Planned edits."""
    parts: int
    """Parts of the plan."""
    pairs: int
    """Pairs published so far, in all turns."""
    finished: bool
    """Whether no row is pending in any stage."""
    stages: tuple[StageStatus, ...]
    """In the order of the chain."""
    damaged: tuple[str, ...]
    """Files that exist and fail a check; ``generate`` makes them again."""
    pruned: tuple[str, ...] = ()
    """Columns that ``editpairs prune`` has dropped, one line per stage."""

    def to_json(self) -> str:
        """ASCII JSON, so that no text of a run can act as a terminal escape."""
        return json.dumps(asdict(self), indent=2)


def summarize(state: RunState) -> RunStatus:
    """The state of a run, read from the footers of its files."""
    state.scan()
    counts, spent = count_run(state), events.spent(state.folder.events)
    return RunStatus(
        version=VERSION,
        folder=str(state.folder.root),
        captions=state.plan.captions,
        duplicates=state.plan.duplicates,
        planned=state.plan.rows,
        parts=state.plan.parts,
        pairs=published(state, counts),
        finished=not any(count.pending.total() for count in counts),
        stages=tuple(_stage(count, spent[count.name]) for count in counts),
        damaged=tuple(str(error) for error in state.damaged.values()),
        pruned=tuple(pruned_lines(state)),
    )


def _stage(count: StageCount, took: Spent) -> StageStatus:
    counters = (count.given, count.kept, count.rejected, count.failed, count.pending)
    reasons = sorted(count.reasons.items(), key=lambda item: (-item[1], item[0]))
    return StageStatus(
        name=count.name,
        parts=count.units,
        parts_done=count.units_done,
        rows=RowCounts(*(counter.total() for counter in counters)),
        tasks={task: RowCounts(*(counter[task] for counter in counters)) for task in count.given},
        lost=tuple(LostRows(status, reason, rows) for (status, reason), rows in reasons),
        wall_seconds=round(took.wall_seconds, 3),
        cpu_seconds=round(took.cpu_seconds, 3),
        gpu_seconds=round(took.gpu_seconds, 3),
    )
