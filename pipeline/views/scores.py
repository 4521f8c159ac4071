"""The scores of a run as a table: one line per candidate, also of rows that were rejected."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.engine.state import RunState
from pipeline.manifest.steps import Step
from pipeline.views.rows import done_stages, rows
from stages.score.metrics import METRICS, SCORE_COLUMNS, score_columns, scores_of

if TYPE_CHECKING:
    import pandas

COLUMNS = ["id", "turn", "round", "task", "candidate", "status", "reason", "chosen"]
_READS = {**score_columns(SCORE_COLUMNS), "filter": ["choice"]}


def score_frame(state: RunState) -> "pandas.DataFrame":
    """Every candidate that was scored: ``COLUMNS``, then a column per metric.

    ``status`` and ``reason`` are the filter's decision about the row in this round, ``pending`` before it has
    decided; ``chosen`` is True for the candidate that was kept. A metric that does not apply is NaN.

    Raises:
        UserError: a file of the run cannot be read.
    """
    import pandas

    state.scan()
    lines = [
        line
        for step in state.steps.values()
        if step.stage == "score"
        for part in range(state.plan.parts)
        if "score" in (done := done_stages(state, part, step.turn))
        for line in _lines(state, part, step, done)
    ]
    numbers = dict.fromkeys(("candidate", "turn", "round"), "int64")
    types = {**numbers, "chosen": bool, **dict.fromkeys(METRICS, float)}
    return pandas.DataFrame(lines, columns=[*COLUMNS, *METRICS]).astype(types)


def _lines(state: RunState, part: int, step: Step, done: list[str]) -> Iterator[dict[str, Any]]:
    reads = {"plan": ["task"], **{stage: columns for stage, columns in _READS.items() if stage in done}}
    for row in rows(state, part, reads, turn=step.turn, round=step.round):
        decided = row.get("stage") == "filter" or row.get("status") in ("rejected", "failed")
        for candidate, scores in enumerate(scores_of(row)):
            yield {
                "id": row["id"],
                "turn": step.turn,
                "round": step.round,
                "task": row["task"],
                "candidate": candidate,
                "status": row["status"] if decided else "pending",
                "reason": row["reason"],
                "chosen": decided and row["status"] == "kept" and row["choice"] == candidate,
                **scores,
            }
