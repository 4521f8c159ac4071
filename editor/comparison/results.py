"""The results of a comparison: a table, JSON, and a sheet with the arms side by side."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from editor.comparison.compare import Plan
from editor.comparison.paired import Difference, Differences
from editor.data.edit_sets import Edit
from editor.editing.editor import Editor
from editor.evaluation.evaluate import ALL, evaluate
from editor.evaluation.intervals import Interval
from editor.evaluation.metrics import Measures
from editor.sheet import Line, draw_sheet
from pipeline.shown import DataTable
from pipeline.store.outputs import new_file

RESULTS, SHEET = "comparison.json", "sheet.png"


@dataclass(frozen=True)
class Arms:
    """What is compared, for tables and JSON: texts by label (the first is the yardstick), and the seeds."""

    texts: Mapping[str, str]
    seeds: Sequence[int]


def difference_table(first: str, second: str, found: Differences) -> DataTable:
    """A line per metric and task: both means, and the difference with its interval and by seed."""
    table = DataTable()
    for name in ("metric", "task", "edits", first, second, f"{second} - {first}", "by seed"):
        table.add_column(name)
    for metric in found[ALL]:
        for task, metrics in found.items():
            if metric in metrics:
                each = metrics[metric]
                table.add_row(
                    metric,
                    task,
                    str(each.difference.count),
                    f"{each.first.mean:.3f}",
                    f"{each.second.mean:.3f}",
                    each.difference.text(),
                    " ".join(f"{value:+.3f}" for value in each.by_seed),
                )
    return table


def write_json(file: Path, arms: Arms, found: Mapping[str, Differences], about: Mapping[str, Any]) -> None:
    """Write all differences; ``found`` by the label of each further arm."""
    content = {
        **about,
        "arms": dict(arms.texts),
        "seeds": list(arms.seeds),
        "differences": {
            label: {
                task: {metric: _as_json(each) for metric, each in metrics.items()}
                for task, metrics in differences.items()
            }
            for label, differences in found.items()
        },
    }
    with new_file(file) as opened:
        opened.write(json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")


def _as_json(each: Difference) -> dict[str, Any]:
    parts = {"first": each.first, "second": each.second, "difference": each.difference}
    content: dict[str, Any] = {name: _interval(interval) for name, interval in parts.items()}
    by_seed = [None if math.isnan(value) else value for value in each.by_seed]
    return content | {"edits": each.difference.count, "by_seed": by_seed}


def _interval(found: Interval) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def write_sheet(plan: Plan, trained: frozenset[str], count: int = 24) -> None:
    """Draw the first edits that every arm can make, by the editors of the first seed."""
    pictures: list[dict[str, np.ndarray]] = []
    shown: dict[str, Edit] = {}
    for arm in plan.arms:
        editor = Editor.from_pretrained(plan.editor(arm, plan.seeds[0]), plan.predictor)
        edits, nothing = plan.edit_set(trained), Measures([], [])
        made = evaluate(editor, edits, nothing, rows=count, batch=plan.batch, shown_per_task=count)
        pictures.append({measured.edit.id: measured.picture for measured in made.shown})
        shown |= {measured.edit.id: measured.edit for measured in made.shown}
    lines = []
    for name, edit in islice(((n, e) for n, e in shown.items() if all(n in p for p in pictures)), count):
        cells = [(edit.before, "input")]
        cells += [(found[name], arm.label) for arm, found in zip(plan.arms, pictures, strict=True)]
        if edit.after is not None:
            cells.append((edit.after, "true result"))
        lines.append(Line(cells, edit.instruction))
    if lines:
        with new_file(plan.folder / SHEET) as file:
            file.write(draw_sheet(lines, 2))
