"""Calibrated filters against verdicts by eye: a section of ``docs/filter-calibration.md``.

``verdicts-by-eye.csv`` holds 150 verdicts, given without knowing decisions or scores. Lines drawn as ``train``
are global edits of the half that calibrates; lines drawn as ``kept`` were kept by a filter calibrated to the
judge, and ``stands_for`` is the number of such rows per line. ``docs/verdicts-by-eye.png`` shows them by number.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.calibration.calibrate import calibrate
from pipeline.calibration.crossed import decide
from pipeline.calibration.figures import measured
from pipeline.verdicts.estimate import Known
from stages.filter.stage import FilterConfig
from stages.tasks import Tasks

FILE = Path(__file__).with_name("verdicts-by-eye.csv")

Verdicts = Mapping[str, Mapping[int, tuple[bool | None, float]]]
"""By row and candidate: right, wrong or unsure, and the number of rows that the verdict stands for."""


def read_verdicts(draw: str) -> Verdicts:
    found: dict[str, dict[int, tuple[bool | None, float]]] = {}
    clear = {"right": True, "wrong": False, "unsure": None}
    with FILE.open(newline="") as file:
        for line in csv.DictReader(file):
            if line["draw"] == draw:
                of_row = found.setdefault(line["id"], {})
                of_row[int(line["candidate"])] = clear[line["verdict"]], float(line["stands_for"])
    return found


def by_eye(rows: Sequence[Known], verdicts: Verdicts) -> list[Known]:
    """The rows that have a verdict by eye, with it in the place of the judge's."""
    seen = []
    for row in rows:
        given = verdicts.get(row.row.id)
        if given is not None:
            right = tuple(given.get(k, (None, 0.0))[0] for k in range(len(row.right)))
            seen.append(replace(row, right=right, weight=max(weight for _, weight in given.values())))
    return seen


def eye_table(
    train: Sequence[Known], test: Sequence[Known], tasks: Tasks, config: FilterConfig, precision: float
) -> Iterator[str]:
    """What filters keep of the test rows, right by eye; one calibrated to the judge, one also by eye."""
    rows, seen = by_eye(test, read_verdicts("kept")), by_eye(train, read_verdicts("train"))
    looked_at = {row.row.task for row in seen}
    mixed = [row for row in train if row.row.task not in looked_at] + seen
    judge, eye = (calibrate(known, tasks, config, precision) for known in (train, mixed))
    filters = {
        "by hand": None,
        "calibrated to the judge": judge.model,
        "calibrated to the judge, global by eye": eye.model,
    }
    yield "| filter | global: kept | right by eye | other tasks: kept | right by eye |"
    yield "|---|---:|---|---:|---|"
    for name, model in filters.items():
        decided = decide(rows, tasks, config, model)
        cells = []
        for within in (True, False):
            part = [row for row in decided if (row.row.task in looked_at) == within]
            kept = sum(row.row.kept and row.got is not None for row in part)
            cells.append(f"{kept} of {len(part)} | {measured(part).precision}")
        yield f"| {name} | {' | '.join(cells)} |"
    for task, why in eye.left_out.items():
        yield f"\nBy eye, {task} keeps its bounds: {why}."
