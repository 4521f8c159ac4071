"""Row counts of a run. They are summed over footers, so they are exact after any crash.

For every stage, and for every task in it: given = kept + rejected + failed + pending. The task is the planned
one; later turns of a session count under their first task.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.engine.state import RunState
from pipeline.manifest.steps import Step
from pipeline.store.counts import unpack


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
    units_done: int = 0
    units: int = 0

    @property
    def pending(self) -> Counter[str]:
        """Rows given to the stage and not yet decided."""
        return self.given - self.kept - self.rejected - self.failed


def count_run(state: RunState) -> list[StageCount]:
    """The funnel: one entry per stage, in order. Rows in files that are not done count as pending."""
    counts: dict[str, StageCount] = {}
    for step in state.steps.values():
        given = state.plan.tasks if step.previous is None else counts[step.previous].kept
        counts[step.name] = _count_stage(state, step, Counter(given))
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
    for (task, status, reason), rows in unpack(done).items():
        by_status[status][task] += rows
        if status != "kept":
            count.reasons[status, reason] += rows
    return count
