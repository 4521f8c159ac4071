"""What does a filter calibrated to verdicts keep, and what does it throw away?

    python -m toybox.studies.filter_calibration runs/editor-pairs runs/toybox    # docs/filter-calibration.md

The independent judge's verdicts about half of the captions of the first run calibrate the filter. It is then
applied to the other half, and to the other runs, whose seeds and captions it has not seen. All candidates of
Prompt-to-Prompt edits about which the filter of the run has decided take part, also of a run under way.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce
from pathlib import Path

from rich.console import Console

from pipeline.api import open_run
from pipeline.calibration.calibrate import calibrate
from pipeline.calibration.crossed import decide
from pipeline.calibration.figures import measured, measured_by_task
from pipeline.calibration.folds import check_enough
from pipeline.engine.state import RunState
from pipeline.store.plan import read_part
from pipeline.verdicts.estimate import Known, known_rows
from pipeline.verdicts.population import reviewable
from pipeline.verdicts.verdict import Verdict
from stages.filter.choice import rank
from stages.filter.model import FilterModel
from stages.filter.stage import FilterConfig
from stages.tasks import Tasks
from toybox.evaluation.judge import Judge
from toybox.evaluation.verdicts import WHO, verdict_lines
from toybox.studies.by_eye import eye_table
from toybox.studies.score_additions import additions_table

REPORT = Path(__file__).parents[2] / "docs" / "filter-calibration.md"
PRECISION = 0.95
POINTS = (0.9, 0.93, 0.95, 0.97, 0.98)

Filter = Callable[[Sequence[Known]], list[Known]]
"""Rows with the choices of a filter."""


@dataclass(frozen=True)
class Judged:
    """Rows with the judge's verdicts about every candidate, and the number of edits planned for them."""

    name: str
    rows: Sequence[Known]
    planned: int


def judged_halves(run: Path, judge: Judge) -> tuple[Judged, Judged]:
    """The rows of a run, by halves of its captions."""
    opened = open_run(run)
    state, tasks = opened.state, opened.tasks
    population = [row for row in reviewable(state) if tasks[row.task].method == "prompt2prompt"]
    verdicts = [
        Verdict(id=row, candidate=candidate, verdict=verdict, who=WHO)
        for row, candidate, verdict, _ in verdict_lines(run, judge)
    ]
    known = known_rows(population, verdicts)
    planned = [*_planned(state, tasks)]
    name = f"{opened.manifest.name}, seed {opened.manifest.seed}"
    first, second = (
        Judged(name, [row for row in known if half_of(row.row.caption) == half], planned.count(half))
        for half in (0, 1)
    )
    return first, second


def joined(first: Judged, second: Judged) -> Judged:
    return Judged(first.name, [*first.rows, *second.rows], first.planned + second.planned)


def half_of(caption: str) -> int:
    return hashlib.blake2b(caption.encode()).digest()[0] % 2


def _planned(state: RunState, tasks: Tasks) -> Iterator[int]:
    """The half of each planned Prompt-to-Prompt edit in the parts that the filter has decided."""
    for part in range(state.plan.parts):
        if state.done(state.steps["filter"], part):
            for row in read_part(state.folder.plan, part, ["task", "caption"]).to_pylist():
                if tasks[row["task"]].method == "prompt2prompt":
                    yield half_of(row["caption"])


def everything(rows: Sequence[Known]) -> list[Known]:
    """Every row kept with the candidate of the highest ``clip_direction``."""

    def best(row: Known) -> int:
        return max(range(len(row.row.scores)), key=lambda place: rank(row.row.scores[place]))

    return [replace(row, row=replace(row.row, choice=best(row))) for row in rows]


def overall_table(judged: Sequence[Judged], filters: Mapping[str, Filter]) -> Iterator[str]:
    yield "| rows | filter | kept of planned | precision | recall |"
    yield "|---|---|---:|---|---|"
    for each in judged:
        for name, filter_ in filters.items():
            rows = filter_(each.rows)
            kept, found = sum(row.row.kept for row in rows), measured(rows)
            share = f"{kept} of {each.planned}, {kept / each.planned:.2f}"
            yield f"| {each.name} | {name} | {share} | {found.precision} | {found.recall} |"


def task_table(rows: Sequence[Known], filters: Mapping[str, Filter]) -> Iterator[str]:
    by_filter = [measured_by_task(filter_(rows)) for filter_ in filters.values()]
    heads = [f"{name}: precision | recall" for name in filters]
    yield "| task | judged | " + " | ".join(heads) + " |"
    yield "|---|---:|" + "---|---|" * len(heads)
    for task in by_filter[0]:
        cells = [f"{found[task].precision} | {found[task].recall}" for found in by_filter]
        yield f"| {task} | {by_filter[0][task].judged} | " + " | ".join(cells) + " |"


def points_table(
    rows: Sequence[Known], fitted: Mapping[float, FilterModel], use: Callable[[FilterModel], Filter]
) -> Iterator[str]:
    yield "| wanted | precision | recall | tasks that keep their bounds |"
    yield "|---:|---|---|---|"
    tasks = {row.row.task for row in rows}
    for wanted, model in fitted.items():
        found = measured(use(model)(rows))
        left = ", ".join(sorted(tasks - set(model.tasks))) or "none"
        yield f"| {wanted} | {found.precision} | {found.recall} | {left} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("calibration", type=Path, help="the folder of a run of a toybox manifest")
    parser.add_argument("test", type=Path, nargs="+", help="folders of runs with other seeds")
    options = parser.parse_args()
    judge = Judge.load()
    train, other = judged_halves(options.calibration, judge)
    check_enough(train.rows)
    unseen = [joined(*judged_halves(run, judge)) for run in options.test]
    opened = open_run(options.calibration)
    tasks, config = opened.tasks, opened.manifest.section("filter", FilterConfig)

    def use(model: FilterModel | None) -> Filter:
        return lambda rows: decide(rows, tasks, config, model)

    fitted = {wanted: calibrate(train.rows, tasks, config, wanted).model for wanted in POINTS}
    filters = {"every pair": everything, "by hand": use(None), "calibrated": use(fitted[PRECISION])}
    tested = [replace(other, name=f"{other.name}, other captions"), *unseen]
    rows = [row for each in tested for row in each.rows]
    if len(unseen) > 1:
        tested.append(replace(reduce(joined, unseen), name="all other seeds"))
    runs = " ".join(f"runs/{run.name}" for run in (options.calibration, *options.test))
    report = REPORT_TEXT.format(
        command=f"python -m toybox.studies.filter_calibration {runs}",
        date=date.today(),
        rows=len(train.rows),
        name=train.name,
        candidates=sum(len(row.right) for row in train.rows),
        wrong=sum(row.right.count(False) for row in train.rows),
        precision=PRECISION,
        overall="\n".join(overall_table(tested, filters)),
        by_task="\n".join(task_table(rows, filters)),
        points="\n".join(points_table(rows, fitted, use)),
        eye="\n".join(eye_table(train.rows, rows, tasks, config, PRECISION)),
        additions="\n".join(additions_table(train.rows, rows, tasks, config, PRECISION)),
    )
    REPORT.write_text(report, encoding="utf-8")
    Console(soft_wrap=True).print(report, markup=False)


REPORT_TEXT = """\
# A filter calibrated to verdicts

`{command}`, {date}.

The filter was calibrated to the independent judge's verdicts about one half of the captions of a run
({name}: {rows} rows, {candidates} candidates, {wrong} of them wrong). The wanted precision was {precision:g}.
All figures are of rows that the calibration has not seen. Truth is the judge's reading of both pictures, of
which no score of the filter knows. It reads objects, colours, places and times. It does not see whether a
mountain or a moon has moved; verdicts by eye are below. Two constants of the calibration were
chosen with these rows and the planted faults in view: the share of right candidates that bounds peel off, and
how far below the wanted precision a row may be.

{overall}

*Every pair* keeps the candidate with the highest `clip_direction`. *By hand* are the bounds of the manifest.
Planned edits also count that were never drawn: no instruction, or no object found.

## By task

{by_task}

## By eye

The filter learns what the verdicts see, and no more. 90 pairs that the filter calibrated to the judge keeps were
judged by eye as well, and 60 global edits of the half that calibrates ([sheet](verdicts-by-eye.png),
`toybox/studies/verdicts-by-eye.csv`). By eye two thirds of the drawn global edits are wrong: a mountain, a window
or a moon has moved, which the judge does not see. Calibrated to the judge, the filter drops the bound on `gmsd`
that finds this. Calibrated to verdicts by eye, it does not.

{eye}

## Other wanted precisions

{points}

## What each score adds

Everything is calibrated again without one score, and without its bounds. *Ranked right* is how often a right
candidate is more probable than a wrong one.

{additions}
"""


if __name__ == "__main__":
    main()
