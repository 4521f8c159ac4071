"""Boundary cases: for each threshold, the rows just inside and just outside, for a person to look at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.views.outcomes import Outcome, finite, sample_parts, survey
from pipeline.views.pairs import Pair
from pipeline.views.rows import best_candidate, done_stages, rows
from stages.filter.model import Models
from stages.pair import as_pair
from stages.score.metrics import score_columns, scores_of
from stages.tasks import Bounds, Task, Tasks

READS = {
    "plan": ["task"],
    "instruct": ["caption", "instruction", "output_caption"],
    "mask": ["precise_mask"],
    "edit": ["anchor", "candidates"],
}


@dataclass(frozen=True)
class Case:
    """The row whose best candidate's score is nearest to a bound, on one side of the bound."""

    row: Outcome
    metric: str
    limit: float
    inside: bool

    @property
    def title(self) -> str:
        side = "inside" if self.inside else "outside"
        return f"{side}: {self.metric} {self.row.scores[self.metric]:.3f}, bound {self.limit:g}"


def boundary_cases(found: Sequence[Outcome], bounds: Mapping[str, Mapping[str, Bounds]]) -> list[Case]:
    """For every bound of every task, the nearest row inside and the nearest row outside, if they exist."""
    cases = []
    for task in sorted(bounds):
        of_task = [row for row in found if row.task == task]
        for metric, bound in bounds[task].items():
            for limit, sign in ((bound.min, 1), (bound.max, -1)):
                scored = [row for row in of_task if metric in row.scores]
                if limit is None or not scored:
                    continue
                for inside in (True, False):
                    side = [row for row in scored if (sign * (row.scores[metric] - limit) >= 0) == inside]
                    if side:
                        nearest = min(side, key=lambda row: (abs(row.scores[metric] - limit), row.id))
                        cases.append(Case(nearest, metric, limit, inside))
    return cases


def read_boundary(
    state: RunState,
    tasks: Tasks,
    bounds: Mapping[str, Mapping[str, Bounds]],
    models: Models,
    seed: int = 0,
) -> list[Pair]:
    """The boundary cases of a run's first turn as pairs for a contact sheet.

    The instruction names the bound.
    """
    found = [row for row in survey(state, sample_parts(state, 0, seed), models) if row.turn == 1]
    cases = boundary_cases(found, bounds)
    drawn = {pair.id: pair for pair in _pairs(state, tasks, cases, models)}
    return [
        Pair(**{**vars(drawn[case.row.id]), "instruction": f"{case.title}. {drawn[case.row.id].instruction}"})
        for case in cases
    ]


def _pairs(state: RunState, tasks: Tasks, cases: Sequence[Case], models: Models) -> Iterator[Pair]:
    for part in sorted({case.row.part for case in cases}):
        ids = [case.row.id for case in cases if case.row.part == part]
        reads = {**READS, **score_columns(done_stages(state, part, turn=1))}
        for row in rows(state, part, reads, ids=ids):
            yield _pair(row, tasks[row["task"]], best_candidate(row, models))


def _pair(row: Mapping[str, Any], task: Task, best: int | None) -> Pair:
    """A row with its best candidate."""
    if best is None:
        raise UserError(f"row {row['id']} has no scores: something else changes files of the run")
    captions = row["caption"], row["output_caption"]
    pair = as_pair(task, row["anchor"], row["candidates"][best]["image"], *captions)
    return Pair(
        row["id"],
        task.name,
        row["instruction"],
        pair.input,
        pair.target,
        row["precise_mask"],
        pair.input_caption,
        pair.output_caption,
        finite(scores_of(row)[best]),
    )
