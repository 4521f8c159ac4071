"""What became of the rows of a run: the ground of histograms, gallery and boundary cases."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.engine.state import RunState
from pipeline.views.rows import BEGINS, best_candidate, done_stages, rows
from stages.placed import step_name
from stages.score.metrics import SCORE_COLUMNS, scores_of

SAMPLED = 20_000
"""Rows of a large run that histograms are of and the gallery is drawn from; of a smaller run all are."""


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
    for turn in sorted({step.turn for step in state.steps.values()}):
        done = done_stages(state, part, turn)
        if turn > 1 and BEGINS not in done:
            return
        reads = {"plan": ["task"], **{stage: SCORE_COLUMNS if stage == "score" else () for stage in done}}
        for row in rows(state.folder, part, reads, turn=turn):
            outcome = Outcome(part, row["id"], row["task"], turn)
            if "stage" in row:
                outcome.outcome = f"{step_name(row['stage'], turn)}:{row['status']}:{row['reason']}"
            best = best_candidate(row)
            if best is not None:
                outcome.scores = finite(scores_of(row)[best])
            yield outcome


def finite(scores: Mapping[str, float | None]) -> dict[str, float]:
    """The scores that are numbers: others have no place in a histogram, and JSON has no word for them."""
    return {metric: value for metric, value in scores.items() if value is not None and math.isfinite(value)}
