"""The outcome of each row in a run. Histograms, gallery and boundary cases are made from outcomes."""

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
"""Rows sampled from a large run for histograms and gallery. A smaller run is used completely."""
BEGINS = "source"
"""The stage that begins a later turn. From there on, its rows have their own task and caption."""


@dataclass
class Outcome:
    """The outcome of a planned row in a turn.

    ``outcome`` is stage:status:reason. ``scores`` belong to the row's best candidate.
    """

    part: int
    id: str
    task: str
    turn: int = 1
    outcome: str = "pending"
    scores: Mapping[str, float] = field(default_factory=dict)


def sample_parts(state: RunState, rows: int, seed: int) -> list[int]:
    """All parts of a small run; of a large one, enough parts to hold ``rows`` rows.

    The parts are drawn by the seed, from the parts that have passed the most stages.

    Args:
        rows: the least number of rows in the parts, if the run has that many.
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
    """The outcomes of all planned rows of some parts, turn by turn, in plan order."""
    return [outcome for part in parts for outcome in outcomes(state, part)]


def outcomes(state: RunState, part: int) -> Iterator[Outcome]:
    """The outcome of each planned row of a part, once per turn that the row began."""
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
    """The task of each row of a part, by id. For a later turn: of the rows that began it."""
    if turn == 1:
        planned = read_part(state.folder.plan, part, ["id", "task"])
    else:
        path = state.folder.part(step_name(BEGINS, turn), part)
        with reading(path):
            planned = pq.read_table(arrow_source(path), columns=["id", "task"], partitioning=None)
    return dict(zip(planned["id"].to_pylist(), planned["task"].to_pylist(), strict=True))


def best_scores(candidates: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The scores of the candidate with the highest CLIP direction similarity."""
    return finite(max(candidates, key=rank))


def finite(scores: Mapping[str, float | None]) -> dict[str, float]:
    """Only the finite scores: a histogram cannot show others, and JSON cannot write them."""
    return {metric: value for metric, value in scores.items() if value is not None and math.isfinite(value)}
