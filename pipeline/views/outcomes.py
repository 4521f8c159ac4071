"""What became of the rows of a run: the ground of histograms, gallery and boundary cases."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.parquet as pq

from pipeline.engine.state import RunState
from pipeline.store.location import arrow_source
from pipeline.store.plan import read_part
from pipeline.store.reading import reading
from stages.filter.stage import rank
from stages.placed import step_name

SAMPLED = 20_000
"""Rows of a large run that histograms are of and the gallery is drawn from; of a smaller run all are."""
BEGINS = "source"
"""The stage that begins a later turn; its rows then have a task and a caption of their own."""


@dataclass
class Outcome:
    """What became of a planned row in a turn: ``outcome`` is stage:status:reason, ``scores`` its best
    candidate's.
    """

    part: int
    id: str
    task: str
    turn: int = 1
    outcome: str = "pending"
    scores: Mapping[str, float] = field(default_factory=dict)


def sample_parts(state: RunState, rows: int, seed: int) -> list[int]:
    """The parts that are looked at: all, or of a large run so many that they hold ``SAMPLED`` rows.

    They are drawn by the seed, from those that have been through the most stages.

    Args:
        rows: that the parts should hold at least.
    """
    wanted = max(rows, SAMPLED)
    if state.plan.rows <= wanted:
        return list(range(state.plan.parts))
    steps = [step for step in state.steps.values() if not step.publishes]
    drawn = np.random.default_rng(seed).permutation(state.plan.parts).tolist()
    drawn.sort(key=lambda part: sum(state.done(step, part) for step in steps), reverse=True)
    held = np.cumsum([state.plan.part_rows[part] for part in drawn])
    return sorted(drawn[: int(np.searchsorted(held, wanted)) + 1])


def survey(state: RunState, parts: Iterable[int]) -> list[Outcome]:
    """What became of the planned rows of some parts, turn by turn, in the plan's order."""
    return [outcome for part in parts for outcome in outcomes(state, part)]


def outcomes(state: RunState, part: int) -> Iterator[Outcome]:
    """Each planned row of a part, once a turn that it began."""
    plan = read_part(state.folder.plan, part, ["id", "task"]).to_pylist()
    found = {(row["id"], 1): Outcome(part, row["id"], row["task"]) for row in plan}
    for step in state.steps.values():
        if step.publishes or not state.done(step, part):
            continue
        begins = step.stage == BEGINS and step.turn > 1
        columns = ["id", "status", "reason", *(["scores"] if step.stage == "score" else [])]
        columns += ["task"] if begins else []
        path = state.path(step, part)
        with reading(path):
            records = pq.read_table(arrow_source(path), columns=columns, partitioning=None).to_pylist()
        for record in records:
            key = record["id"], step.turn
            if begins and record["status"] == "kept":
                found[key] = Outcome(part, record["id"], record["task"], step.turn)
            elif begins:
                continue
            row = found[key]
            row.outcome = f"{step.name}:{record['status']}:{record['reason']}"
            if record.get("scores"):
                row.scores = best_scores(record["scores"])
    return iter(sorted(found.values(), key=lambda row: row.turn))


def tasks_of_rows(state: RunState, turn: int, part: int) -> dict[str, str]:
    """The task of each row of a part, by id; of a later turn, of the rows that began it."""
    if turn == 1:
        planned = read_part(state.folder.plan, part, ["id", "task"])
    else:
        path = state.folder.part(step_name(BEGINS, turn), part)
        with reading(path):
            planned = pq.read_table(arrow_source(path), columns=["id", "task"], partitioning=None)
    return dict(zip(planned["id"].to_pylist(), planned["task"].to_pylist(), strict=True))


def best_scores(candidates: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The scores of the candidate that changed most in the caption's direction."""
    return finite(max(candidates, key=rank))


def finite(scores: Mapping[str, float | None]) -> dict[str, float]:
    """The scores that are numbers: others have no place in a histogram, and JSON has no word for them."""
    return {metric: value for metric, value in scores.items() if value is not None and math.isfinite(value)}
