"""Calibrated filters against verdicts by eye: a section of ``docs/filter-calibration.md``.

``verdicts-by-eye.csv`` holds 150 verdicts, given without knowing decisions or scores. Lines drawn as
``train`` are global edits of the half that calibrates; lines drawn as ``kept`` were kept by a filter
calibrated to the judge, and ``stands_for`` is the number of such rows per line.
``docs/verdicts-by-eye.png`` shows them by number.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from pipeline.calibration.figures import measured
from pipeline.verdicts.estimate import Known
from toybox.studies.filter_tables import Filter

FILE = Path(__file__).with_name("verdicts-by-eye.csv")

Verdicts = Mapping[str, Mapping[int, tuple[bool | None, float]]]
"""By row and candidate: right, wrong or unsure, and the number of rows that the verdict stands for."""


def read_verdicts(draw: str, run: str) -> Verdicts:
    """The verdicts of a draw about a run. Rows of runs with different seeds can have the same id."""
    found: dict[str, dict[int, tuple[bool | None, float]]] = {}
    clear = {"right": True, "wrong": False, "unsure": None}
    with FILE.open(newline="") as file:
        for line in csv.DictReader(file):
            if (line["draw"], line["run"]) == (draw, run):
                of_row = found.setdefault(line["id"], {})
                of_row[int(line["candidate"])] = clear[line["verdict"]], float(line["stands_for"])
    return found


def by_eye(rows: Sequence[Known], verdicts: Verdicts) -> list[tuple[Known, Known]]:
    """Rows of a run that have a verdict by eye: each as it is, and with it in the place of the judge's."""
    pairs = []
    for row in rows:
        given = verdicts.get(row.row.id)
        if given is not None:
            right = tuple(given.get(k, (None, 0.0))[0] for k in range(len(row.right)))
            weight = max(weight for _, weight in given.values())
            pairs.append((row, replace(row, right=right, weight=weight)))
    return pairs


def with_eyes(train: Sequence[Known], seen: Sequence[Known]) -> list[Known]:
    """The rows that calibrate; in the tasks that were judged by eye, only rows and verdicts by eye."""
    looked_at = {row.row.task for row in seen}
    return [row for row in train if row.row.task not in looked_at] + [*seen]


def eye_table(rows: Sequence[Known], filters: Mapping[str, Filter]) -> Iterator[str]:
    """What filters keep of rows that were judged by eye, and how much of it is right by eye."""
    yield "| filter | global: kept | right by eye | other tasks: kept | right by eye |"
    yield "|---|---:|---|---:|---|"
    for name, filter_ in filters.items():
        decided = filter_(rows)
        parts = [[row for row in decided if (row.row.task == "global") == is_global] for is_global in (1, 0)]
        yield f"| {name} | {' | '.join(_cells(part) for part in parts)} |"


def agreement_table(pairs: Iterable[tuple[Known, Known]]) -> Iterator[str]:
    """The judge's verdicts beside those by eye: candidates that the eye was sure of."""
    counts: Counter[tuple[bool, bool | None, bool | None]] = Counter()
    for judged, seen in pairs:
        both = zip(judged.right, seen.right, strict=True)
        counts.update((seen.row.task == "global", *verdicts) for verdicts in both)
    yield "| edits | right for both | only for the judge | only by eye | wrong for both |"
    yield "|---|---:|---:|---:|---:|"
    for name, is_global in (("global", True), ("others", False)):
        cells = [counts[is_global, judge, eye] for judge, eye in product((True, False), repeat=2)]
        yield f"| {name} | {' | '.join(map(str, cells))} |"


def _cells(rows: Sequence[Known]) -> str:
    kept = sum(row.row.kept and row.got is not None for row in rows)
    return f"{kept} of {len(rows)} | {measured(rows).precision if rows else '-'}"
