"""The rows that each stage will have been given at the end of a run, from the shares kept so far."""

from collections.abc import Sequence

from pipeline.engine.ledger import StageCount
from pipeline.engine.state import RunState


def judged(count: StageCount) -> int:
    """Number of rows that a stage has kept, rejected or failed."""
    return count.given.total() - count.pending.total()


def expected_rows(state: RunState, counts: Sequence[StageCount]) -> dict[str, float]:
    """The rows that each stage will have been given at the end, by the shares decided so far.

    Stages of which nothing is known yet are left out.
    """
    by_name = {count.name: count for count in counts}
    expected: dict[str, float] = {}
    for name, step in state.steps.items():
        if not all(given.step in expected for given in step.rows_of):
            continue
        rows = 0.0 if step.rows_of else float(state.plan.rows)
        for given in step.rows_of:
            before = by_name[given.step]
            rows += expected[given.step] * before.giving(given).total() / max(1, judged(before))
        if judged(by_name[name]) or not rows:
            expected[name] = rows
    return expected
