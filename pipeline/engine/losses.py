"""What becomes of a unit that loses its worker: whether it is run again, how, and whether a row is to blame.

A worker may be killed by anyone: a spot node goes, the system needs memory. So a unit is simply run again,
at first as it was, then row by row. A row is to blame only if its process ended twice while that row ran
alone. In between all other rows are run before it, so that what strikes at one moment does not strike the
same row twice.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

from pipeline.engine.jobs import Job, Unit
from pipeline.engine.notes import Note, Notes

WHOLE = 2
"""How often a unit that lost its worker is run again as it was; from then on it is run row by row."""
CONVICTING = 2
"""How often a process must end with a row alone for the row to fail."""
MOST_LOSSES = 10
"""Workers that a unit may lose before or between convictions."""
MOST_HANGS = 5
"""As ``MOST_LOSSES``, of workers that hung: each took ``hang_seconds``."""
MOST_ROWS = 3
"""Rows of a unit that may end their worker; more are no accident, and stop the stage. Also how many may be
suspects while no worker finishes any row: then it is not the rows."""


@dataclass(frozen=True)
class Died:
    """What ended a worker, or why it must end."""

    reason: str
    hung: bool = False
    by_itself: bool = False
    """The worker says so itself: nobody killed it."""


@dataclass
class _Case:
    """What is known of one unit's losses since a row was last convicted."""

    losses: int = 0
    hangs: int = 0
    progress: bool = False
    """Whether a worker that was lost had finished a row alone."""
    ended_with: Counter[str] = field(default_factory=Counter)


class Losses:
    """The lost workers of a stage."""

    def __init__(self, job: Job) -> None:
        self._notes = Notes(job.folder, job.step.name)
        self._cases: dict[int, _Case] = defaultdict(_Case)

    def again(self, unit: Unit, died: Died) -> Unit | None:
        """How the unit is run once more; None: not again, for no row is to blame, or too many are."""
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
    """Which workers hang, by the notes that they leave (:mod:`pipeline.engine.notes`).

    Notes are compared with this process's clock alone, so clock skew between nodes does not matter.
    """

    def __init__(self, job: Job) -> None:
        self._notes = Notes(job.folder, job.step.name)
        self._seconds = job.config.resources.hang_seconds
        self._seen: dict[int, tuple[Note | None, float]] = {}

    def hangs(self, unit: int) -> bool:
        """Whether the unit's worker has been over one batch for too long."""
        note, now = self._notes.read(unit), time.monotonic()
        if unit not in self._seen or self._seen[unit][0] != note:
            self._seen[unit] = note, now
        return now - self._seen[unit][1] > self._seconds

    def begin(self, unit: int) -> None:
        """The unit begins, or begins again."""
        self._seen.pop(unit, None)
