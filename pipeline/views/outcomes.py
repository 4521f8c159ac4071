"""The outcome of each row in a run. Histograms, gallery and boundary cases are made from outcomes."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.engine.state import RunState
from pipeline.views.rows import BEGINS, best_candidate, done_stages, rows
from stages.filter.model import UNCALIBRATED, Models
from stages.score.metrics import score_columns, scores_of

SAMPLED = 20_000
"""Rows sampled from a large run for histograms and gallery. A smaller run is used completely."""


@dataclass
class Outcome:
    """The outcome of a planned row in a turn.

    ``outcome`` is step:status:reason. ``scores`` belong to the row's best candidate. If a row was drawn in
    several rounds, both are of its last round.
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


def survey(state: RunState, parts: Iterable[int], models: Models = UNCALIBRATED) -> list[Outcome]:
    """The outcomes of all planned rows of some parts, turn by turn, in plan order.

    Args:
        state: the run.
        parts: numbers of the parts.
        models: of a calibrated filter, by task.
    """
    return [outcome for part in parts for outcome in outcomes(state, part, models)]


def outcomes(state: RunState, part: int, models: Models) -> Iterator[Outcome]:
    """The outcome of each planned row of a part, once per turn that the row began."""
    for turn in sorted({step.turn for step in state.steps.values()}):
        done = done_stages(state, part, turn)
        if turn > 1 and BEGINS not in done:
            return
        reads = {"plan": ["task"], **dict.fromkeys(done, ()), **score_columns(done)}
        for row in rows(state, part, reads, turn=turn):
            outcome = Outcome(part, row["id"], row["task"], turn)
            if "step" in row:
                outcome.outcome = f"{row['step']}:{row['status']}:{row['reason']}"
            best = best_candidate(row, models)
            if best is not None:
                outcome.scores = finite(scores_of(row)[best])
            yield outcome


def finite(scores: Mapping[str, float | None]) -> dict[str, float]:
    """Only the finite scores: a histogram cannot show others, and JSON cannot write them."""
    return {metric: value for metric, value in scores.items() if value is not None and math.isfinite(value)}
