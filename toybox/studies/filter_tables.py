"""The tables of ``docs/filter-calibration.md``: what filters keep of judged rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from pipeline.calibration.figures import measured, measured_by_task
from pipeline.verdicts.estimate import Known
from stages.filter.choice import rank
from stages.filter.model import FilterModel

Filter = Callable[[Sequence[Known]], list[Known]]
"""Rows with the choices of a filter."""


@dataclass(frozen=True)
class Judged:
    """Rows with the judge's verdicts about every candidate, and the number of edits planned for them."""

    run: str
    """The name of the run's folder."""
    name: str
    rows: Sequence[Known]
    planned: int


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
    """By task, the share of right candidates and what filters keep; tells where they make it worse."""
    found = {name: measured_by_task(filter_(rows)) for name, filter_ in filters.items()}
    yield "| task | judged | right of drawn | " + " | ".join(f"{n}: precision | recall" for n in found) + " |"
    yield "|---|---:|---:|" + "---|---|" * len(found)
    below = []
    for task in sorted({row.row.task for row in rows}):
        each = [row for row in rows if row.row.task == task]
        drawn = right_of_drawn(each)
        cells = [f"{of_task[task].precision} | {of_task[task].recall}" for of_task in found.values()]
        yield f"| {task} | {len(each)} | {drawn:.2f} | {' | '.join(cells)} |"
        shares = {name: of_task[task].precision.value for name, of_task in found.items()}
        below += [
            f"{task}, {name} ({share:.3f} of {drawn:.3f})"
            for name, share in shares.items()
            if share is not None and share < drawn
        ]
    worse = f"below the share right of drawn in: {'; '.join(below)}" if below else "never below it"
    yield f"\nThe precision of kept pairs is {worse}."


def right_of_drawn(rows: Iterable[Known]) -> float:
    """The share of right candidates, chosen or not."""
    verdicts = [*chain.from_iterable(row.right for row in rows)]
    return verdicts.count(True) / len(verdicts)


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
