"""Boundary cases: for each threshold, the rows just inside and just outside, for a person to look at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.engine.state import RunState
from pipeline.store.reading import reading
from pipeline.store.rows import read_rows
from pipeline.views.outcomes import Outcome, finite, sample_parts, survey
from pipeline.views.pairs import Pair
from stages.filter.stage import rank
from stages.pair import as_pair
from stages.tasks import Bounds, Task, Tasks

BATCH = 64
READS = {
    "plan": ["task"],
    "instruct": ["caption", "instruction", "output_caption"],
    "mask": ["precise_mask"],
    "edit": ["anchor", "candidates"],
    "score": ["scores"],
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
        rows = [row for row in found if row.task == task]
        for metric, bound in bounds[task].items():
            for limit, sign in ((bound.min, 1), (bound.max, -1)):
                scored = [row for row in rows if metric in row.scores]
                if limit is None or not scored:
                    continue
                for inside in (True, False):
                    side = [row for row in scored if (sign * (row.scores[metric] - limit) >= 0) == inside]
                    if side:
                        nearest = min(side, key=lambda row: (abs(row.scores[metric] - limit), row.id))
                        cases.append(Case(nearest, metric, limit, inside))
    return cases


def read_boundary(
    state: RunState, tasks: Tasks, bounds: Mapping[str, Mapping[str, Bounds]], seed: int = 0
) -> list[Pair]:
    """The boundary cases of a run's first turn as pairs for a contact sheet.

    The instruction names the bound.
    """
    found = [row for row in survey(state, sample_parts(state, 0, seed)) if row.turn == 1]
    cases = boundary_cases(found, bounds)
    drawn = {pair.id: pair for pair in _pairs(state, tasks, cases)}
    return [
        Pair(**{**vars(drawn[case.row.id]), "instruction": f"{case.title}. {drawn[case.row.id].instruction}"})
        for case in cases
    ]


def _pairs(state: RunState, tasks: Tasks, cases: Sequence[Case]) -> Iterator[Pair]:
    for part in sorted({case.row.part for case in cases}):
        ids = pa.array(sorted({case.row.id for case in cases if case.row.part == part}))
        files = {stage: state.folder.part(stage, part) for stage in READS if stage != "plan"}
        with reading(state.folder.root):
            for table in read_rows(state.folder.plan, part, files, READS, {}, ids, BATCH):
                yield from (_pair(row, tasks[row["task"]]) for row in table.to_pylist())


def _pair(row: Mapping[str, Any], task: Task) -> Pair:
    """A row with its best candidate."""
    best = max(range(len(row["scores"])), key=lambda k: rank(row["scores"][k]))
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
        finite(row["scores"][best]),
    )
