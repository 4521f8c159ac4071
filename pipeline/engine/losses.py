"""Decide about a unit that lost its worker: whether to run it again, how, and whether a row is to blame.

A worker can die for outside reasons: a spot node is taken away, the system needs memory. The unit is
therefore run again, first as before, then row by row. A row is to blame only after its process ended twice
while this row ran alone. Before its second try, all other rows of the unit run, so that an outside event does
not hit the same row twice.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

from pipeline.engine.jobs import Job, Unit
from pipeline.engine.notes import Note, Notes

WHOLE = 2
"""How often a unit is run again as before. After that it runs row by row."""
CONVICTING = 2
"""How often a process must end with the same row alone before the row fails."""
MOST_LOSSES = 10
"""Most workers that a unit may lose without a new row being convicted."""
MOST_HANGS = 5
"""The same for workers that hang; each costs ``hang_seconds``."""
MOST_ROWS = 3
"""Most rows of a unit that may be convicted.

More are no accident and stop the stage. It is also the most suspects while no worker finishes any row: then
the rows are not the cause."""


@dataclass(frozen=True)
class Died:
    """Why a worker ended, or why it must end."""

    reason: str
    hung: bool = False
    by_itself: bool = False
    """Whether the worker itself reported the failure; then nobody killed it."""


@dataclass
class _Case:
    """The losses of one unit since a row was last convicted."""

    losses: int = 0
    hangs: int = 0
    progress: bool = False
    """Whether a lost worker had finished a row alone."""
    ended_with: Counter[str] = field(default_factory=Counter)


class Losses:
    """The lost workers of a stage."""

    def __init__(self, job: Job) -> None:
        self._notes = Notes(job.folder, job.step.name)
        self._cases: dict[int, _Case] = defaultdict(_Case)

    def again(self, unit: Unit, died: Died) -> Unit | None:
        """The unit in the form it is run again, or None to give up: no row is to blame, or too many are."""
        note = self._notes.read(unit.number)
        self._notes.remove(unit.number)
        case = self._cases[unit.number]
        case.losses += 1
        case.hangs += died.hung
        if not unit.careful:
            whole = case.losses <= WHOLE and not died.hung and not died.by_itself
            return unit if whole else replace(unit, careful=True)
        note = note or Note(0)
        case.progress = case.progress or note.finished > 0
        poison = unit.poison
        if note.row is not None:
            case.ended_with[note.row] += 1
            if case.ended_with[note.row] >= CONVICTING:
                poison = (*poison, note.row)
                known = Counter({row: n for row, n in case.ended_with.items() if row != note.row})
                case = self._cases[unit.number] = _Case(ended_with=known)
        suspects = tuple(case.ended_with)
        everyone = len(suspects) > MOST_ROWS and not case.progress
        if len(poison) > MOST_ROWS or everyone or case.losses > MOST_LOSSES or case.hangs >= MOST_HANGS:
            return None
        return replace(unit, suspects=suspects, poison=poison)


class Heartbeats:
    """Find hanging workers from their notes (:mod:`pipeline.engine.notes`).

    A note is compared with this process's monotonic clock, so clock skew between nodes does not matter.
    """

    def __init__(self, job: Job) -> None:
        self._notes = Notes(job.folder, job.step.name)
        self._seconds = job.config.resources.hang_seconds
        self._seen: dict[int, tuple[Note | None, float]] = {}

    def hangs(self, unit: int) -> bool:
        """Whether the unit's worker has spent too long on one batch."""
        note, now = self._notes.read(unit), time.monotonic()
        if unit not in self._seen or self._seen[unit][0] != note:
            self._seen[unit] = note, now
        return now - self._seen[unit][1] > self._seconds

    def begin(self, unit: int) -> None:
        """Start the clock of a unit when it begins, or begins again."""
        self._seen.pop(unit, None)
