"""More candidates of edits with small regions: what the filter keeps, what is right, and what it costs.

    python -m toybox.studies.cheap_candidates runs/toybox runs/toybox-91 --rows 100

Draws four candidates of each row, as ``edit.cheap_candidates`` does, and scores them. The filter then chooses
among the first one, the first two (the task's own) and all four. The first rows are also drawn with one and
two candidates, to see what these cost; all numbers take turns, batch by batch. Right: by the judge, in the
pair that the filter chose. Rows: those whose soft mask covers at most a fourth of the picture.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.progress import track

from editor.evaluation.intervals import mean_intervals
from pipeline.manifest.manifest import Manifest, read_manifest, tasks_of
from pipeline.shown import plain_table
from pipeline.views.rows import rows_of_run
from stages import STAGES
from stages.edit.config import EditConfig
from stages.edit.rounds import RoundCandidates
from stages.edit.stage import Edit
from stages.filter.stage import Filter, FilterConfig
from stages.pair import as_pair
from stages.pictures.png import decode_rgb
from stages.pictures.region import MaskedRegion
from stages.score.stage import Score, ScoreConfig
from stages.tasks import Tasks
from toybox.evaluation.evaluate_edits import is_right
from toybox.evaluation.judge import Judge
from toybox.studies.mask_ablation import READS, ROOT, TASKS

COUNTS = (1, 2, 4)
LARGEST = 1 / 4
"""Largest region, as a share of the picture."""

Row = Mapping[str, Any]


def stage_with(count: int, manifest: Manifest, tasks: Tasks) -> Edit:
    """The edit stage with a number of candidates, all computed in their regions."""
    config = manifest.section("edit", EditConfig)
    drawn = RoundCandidates(tasks, config.candidates, {}, config.diffusion.steps, cheap=max(COUNTS))
    several = {name: (drawn.of(name, 1) + drawn.further(name, 1))[:count] for name in TASKS}
    changes = {"candidates": several, "region": "schedule", "cheap_candidates": 1}
    return Edit(EditConfig(**{**dict(config), **changes}), tasks)


def is_small(row: Row) -> bool:
    return row["task"] in TASKS and float((MaskedRegion.from_row(row).soft > 0).mean()) <= LARGEST


def timed(stage: Edit, rows: Sequence[Row]) -> tuple[list[dict[str, Any]], float]:
    began = time.process_time()
    made = stage(pa.Table.from_pylist([dict(row) for row in rows])).to_pylist()
    return made, time.process_time() - began


def outcomes(rows: Sequence[Row], score: Score, keep: Filter, judge: Judge) -> list[list[tuple[bool, bool]]]:
    """For each row and number of candidates: whether the filter keeps one, and whether that one is right."""
    scored = score(pa.Table.from_pylist([dict(row) for row in rows])).to_pylist()
    found = []
    for row, scores in zip(rows, scored, strict=True):
        of_row, task = [], keep.tasks[row["task"]]
        for count in COUNTS:
            fewer = {name: scores[name][:count] for name in ("scores", "candidate_hashes")}
            table = pa.Table.from_pylist([{**scores, **fewer, "task": task.name}])
            [decision] = keep(table).to_pylist()
            right = False
            if decision["status"] == "kept":
                picture = decode_rgb(row["candidates"][decision["choice"]]["image"])
                pair = as_pair(
                    task, decode_rgb(row["anchor"]), picture, row["caption"], row["output_caption"]
                )
                right = is_right(judge, task, pair)
            of_row.append((decision["status"] == "kept", right))
        found.append(of_row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs of the toybox")
    parser.add_argument("--rows", type=int, default=100, help="at most so many rows")
    parser.add_argument("--timed", type=int, default=30, help="rows that are drawn with each number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", [], STAGES)
    tasks = tasks_of(manifest)
    stages = {count: stage_with(count, manifest, tasks) for count in COUNTS}
    score = Score(manifest.section("score", ScoreConfig), tasks)
    keep, judge = Filter(manifest.section("filter", FilterConfig), tasks), Judge.load()
    small = (row for run in options.runs for row in rows_of_run(run, "mask", READS) if is_small(row))
    rows, batch = list(islice(small, options.rows)), stages[1].config.batch
    seconds, found = dict.fromkeys(COUNTS, 0.0), []
    for start in track(range(0, len(rows), batch), "edits"):
        part = rows[start : start + batch]
        for count in COUNTS:
            if start < options.timed or count == COUNTS[-1]:
                made, each = timed(stages[count], part)
                seconds[count] += each if start < options.timed else 0
        drawn = [{**row, **pictures} for row, pictures in zip(part, made, strict=True)]
        found += outcomes(drawn, score, keep, judge)
    figures, count_timed = np.array(found, float), min(len(rows), -(-options.timed // batch) * batch)
    table = plain_table(
        "candidates", "rows", "kept", "kept and right", "right of kept", "CPU s a row, drawing"
    )
    for number, count in enumerate(COUNTS):
        kept, right = figures[:, number].T
        both = (right - figures[:, 0, 1])[:, None]
        change = mean_intervals(both, range(len(rows)))[0].text()
        table.add_row(
            str(count),
            str(len(rows)),
            f"{kept.sum():.0f}",
            f"{right.sum():.0f} (against one: {change})",
            f"{right.sum() / max(1, kept.sum()):.2f}",
            f"{seconds[count] / count_timed:.2f}",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
