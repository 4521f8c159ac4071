"""Row counts of a run. They are summed over footers, so they are exact after any crash.

For every stage, and for every task in it: given = kept + rejected + failed + pending. The task is the planned
one; later turns of a session count under their first task. A row that a round rejects is given to the next
round, so it counts as rejected there and once more in the next round.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.engine.state import RunState
from pipeline.manifest.steps import Step
from pipeline.store.counts import Counts, unpack
from stages.placed import Given


@dataclass
class StageCount:
    """Row counts of one stage. Counters are by task."""

    name: str
    given: Counter[str]
    kept: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rejected and failed rows by (status, reason)."""
    decided: Counts = field(default_factory=Counter)
    """All decided rows by (task, status, reason)."""
    units_done: int = 0
    units: int = 0

    @property
    def pending(self) -> Counter[str]:
        """Rows given to the stage and not yet decided."""
        return self.given - self.kept - self.rejected - self.failed

    def giving(self, given: Given) -> Counter[str]:
        """The decided rows that a later step is given, by task."""
        rows: Counter[str] = Counter()
        for (task, status, reason), number in self.decided.items():
            if status == given.status and reason not in given.final:
                rows[task] += number
        return rows


def count_run(state: RunState) -> list[StageCount]:
    """The funnel: one entry per stage, in order. Rows in files that are not done count as pending."""
    counts: dict[str, StageCount] = {}
    for step in state.steps.values():
        rows = Counter(state.plan.tasks if step.previous is None else {})
        for given in step.rows_of:
            rows += counts[given.step].giving(given)
        counts[step.name] = _count_stage(state, step, rows)
    return list(counts.values())


def published(state: RunState, counts: Iterable[StageCount]) -> int:
    """The number of pairs that a run has published, over all turns."""
    return sum(c.kept.total() for c in counts if state.steps[c.name].publishes)


def _count_stage(state: RunState, step: Step, given: Counter[str]) -> StageCount:
    count = StageCount(step.name, given, units=step.unit_count(state.plan.parts))
    footers = (state.footer(step, unit) for unit in range(count.units) if state.done(step, unit))
    done = [footer.packed for footer in footers if footer is not None]
    count.units_done = len(done)
    by_status = {"kept": count.kept, "rejected": count.rejected, "failed": count.failed}
    count.decided = unpack(done)
    for (task, status, reason), rows in count.decided.items():
        by_status[status][task] += rows
        if status != "kept":
            count.reasons[status, reason] += rows
    return count
