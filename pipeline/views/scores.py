"""The scores of a run as a table: one line per candidate, also of rows that were rejected."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.engine.state import RunState
from pipeline.manifest.steps import Step
from pipeline.store.sealed import read_table
from pipeline.views.outcomes import tasks_of_rows
from stages.placed import step_name
from stages.score.metrics import METRICS

if TYPE_CHECKING:
    import pandas

COLUMNS = ["id", "turn", "task", "candidate", "status", "reason", "chosen"]


def score_frame(state: RunState) -> "pandas.DataFrame":
    """Every candidate that was scored: ``COLUMNS``, then a column per metric.

    ``status`` and ``reason`` are the filter's decision about the row, ``pending`` before it has decided;
    ``chosen`` is True for the candidate that was kept. A metric that does not apply is NaN.

    Raises:
        OSError, DamagedFileError: a file of the run cannot be read.
    """
    import pandas

    state.scan()
    scored = [step for step in state.steps.values() if step.stage == "score"]
    lines = [
        line
        for step in scored
        for part in range(state.plan.parts)
        if state.done(step, part)
        for line in _lines(state, step, part)
    ]
    frame = pandas.DataFrame(lines, columns=[*COLUMNS, *METRICS])
    return frame.astype(
        {"candidate": "int64", "turn": "int64", "chosen": bool, **dict.fromkeys(METRICS, float)}
    )


def _lines(state: RunState, step: Step, part: int) -> Iterator[dict[str, Any]]:
    tasks = tasks_of_rows(state, step.turn, part)
    decisions = _decisions(state, step.turn, part)
    table = read_table(state.path(step, part), ["id", "status", "scores"])
    for row in table.to_pylist():
        decision = decisions.get(row["id"], {"status": "pending", "reason": "", "choice": None})
        for candidate, scores in enumerate(row["scores"] or ()):
            yield {
                "id": row["id"],
                "turn": step.turn,
                "task": tasks[row["id"]],
                "candidate": candidate,
                "status": decision["status"],
                "reason": decision["reason"],
                "chosen": decision["status"] == "kept" and decision["choice"] == candidate,
                **scores,
            }


def _decisions(state: RunState, turn: int, part: int) -> dict[str, dict[str, Any]]:
    """What the filter decided about the rows of a part, by id; nothing before it has run."""
    step = state.steps[step_name("filter", turn)]
    if not state.done(step, part):
        return {}
    table = read_table(state.path(step, part), ["id", "status", "reason", "choice"])
    return {row["id"]: row for row in table.to_pylist()}
