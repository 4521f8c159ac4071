"""One person's review of a run: which candidate comes next, giving and taking back verdicts, progress."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import RLock

from pipeline.verdicts.agreement import agreements
from pipeline.verdicts.book import Book
from pipeline.verdicts.estimate import by_task, current, estimate, known_rows, rows_left
from pipeline.verdicts.strata import Draw, Drawn
from pipeline.verdicts.verdict import Answer, Key, Verdict

SHARED = 5
"""Every fifth row is shown to everybody, so that people can be compared. The others are shown to one."""
WANTED = 0.05
"""The review is long enough once precision is known to within this much in every task."""


@dataclass(frozen=True)
class Item:
    """A candidate to judge."""

    drawn: Drawn
    candidate: int

    @property
    def key(self) -> Key:
        return Key(self.drawn.row.id, self.drawn.row.turn, self.candidate)


@dataclass(frozen=True)
class TaskProgress:
    task: str
    judged: int
    precision: str
    recall: str
    left: int
    """About how many more kept rows must be judged; 0 if precision is known well enough."""


@dataclass(frozen=True)
class Progress:
    """The state of the review over all people."""

    mine: int
    """Verdicts of this person."""
    judged: int
    """Rows with a verdict of anybody."""
    rows: int
    """Rows that can be judged."""
    precision: str
    recall: str
    tasks: Sequence[TaskProgress]
    agreement: Sequence[str]


class Session:
    """The review of one person. Its methods may be called from several threads."""

    def __init__(self, draw: Draw, book: Book, who: str) -> None:
        self._draw, self._book, self.who = draw, book, who
        self._population = [drawn.row for drawn in draw.rows]
        self._items = {item.key: item for item in self._in_order()}
        self._given: list[Key] = []
        """What this session has judged and not taken back, for undo."""
        self._lock = RLock()
        self._reload()

    def item(self, key: Key) -> Item | None:
        return self._items.get(key)

    def next(self) -> Item | None:
        """The next candidate for this person; None if there is none left."""
        with self._lock:
            mine = self._keys_of(self.who)
            others = {(v.id, v.turn) for v in self._verdicts if v.who != self.who}
            for place, drawn in enumerate(self._draw.rows):
                row = drawn.row
                if (row.id, row.turn) in others and place % SHARED:
                    continue
                for candidate in range(len(row.scores)):
                    if Key(row.id, row.turn, candidate) not in mine:
                        return Item(drawn, candidate)
            return None

    def give(self, item: Item, answer: Answer, reason: str) -> None:
        """Store a verdict; it is on the disk when this returns.

        Raises:
            OSError, UserError: it could not be stored.
        """
        row = item.drawn.row
        verdict = Verdict(
            id=row.id,
            turn=row.turn,
            candidate=item.candidate,
            verdict=answer,
            reason=reason,
            who=self.who,
            anchor_hash=row.anchor_hash,
            candidate_hash=row.candidate_hashes[item.candidate],
            stratum=item.drawn.stratum,
            stratum_rows=item.drawn.stratum_rows,
            design=self._draw.design,
        )
        with self._lock:
            self._book.add([verdict])
            if item.key in self._given:
                self._given.remove(item.key)
            self._given.append(item.key)
            self._reload()

    def undo(self) -> Item | None:
        """Take back the last verdict of this session, and return its candidate; None if there is none."""
        with self._lock:
            if not self._given:
                return None
            key = self._given[-1]
            self._book.take_back(key, self.who)
            self._given.pop()
            self._reload()
            return self._items[key]

    def progress(self) -> Progress:
        with self._lock:
            known = known_rows(self._population, self._verdicts)
            mine = len(self._keys_of(self.who))
            told = [str(agreement) for agreement in agreements(self._verdicts)]
        overall, tasks = estimate(known), by_task(known)
        left = rows_left(tasks, WANTED)
        return Progress(
            mine=mine,
            judged=len(known),
            rows=len(self._draw.rows),
            precision=str(overall.precision),
            recall=str(overall.recall),
            tasks=[
                TaskProgress(task, found.judged, str(found.precision), str(found.recall), left[task])
                for task, found in tasks.items()
            ],
            agreement=told,
        )

    def _keys_of(self, who: str) -> set[Key]:
        return {verdict.key for verdict in self._verdicts if verdict.who == who}

    def _in_order(self) -> Iterator[Item]:
        for drawn in self._draw.rows:
            for candidate in range(len(drawn.row.scores)):
                yield Item(drawn, candidate)

    def _reload(self) -> None:
        """Read the verdicts again: another person may have given some in another process."""
        self._verdicts = current(self._population, self._book.read())
