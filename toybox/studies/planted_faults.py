"""Do the default filters find faults? Faults are planted in the kept pairs of a run.

    python -m toybox.studies.planted_faults runs/toybox-eval          # writes docs/planted-faults.md
    python -m toybox.studies.planted_faults runs/toybox-eval --model manifests/toybox-filter.json

Each fault spoils a kept Prompt-to-Prompt pair. The manifest's score and filter stages then decide about the
spoiled pair as about any other. Vision tasks are left out: their targets are computed.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from pipeline.api import open_run
from pipeline.manifest.manifest import read_manifest, tasks_of
from pipeline.views.rows import kept_rows
from stages import STAGES
from stages.edit.annotations.adjust import Adjustment, adjust
from stages.filter.model import read_model
from stages.filter.stage import Filter, FilterConfig
from stages.pair import as_pair
from stages.pictures.fidelity import as_float, mean_change
from stages.pictures.png import decode_rgb, encode_png
from stages.pictures.region import Region
from stages.score.stage import Score, ScoreConfig
from stages.tasks import Task, Tasks

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "planted-faults.md"
READS = {
    "plan": ["task"],
    "instruct": ["caption", "output_caption", "edited_object", "original_object"],
    "mask": ["precise_mask", "boxes"],
    "edit": ["anchor", "candidates"],
    "filter": ["choice"],
}
BATCH = 6

Row = Mapping[str, Any]


class Pair:
    """A kept pair, decoded: ``input`` and ``target`` uint8 [h,w,3], ``inside`` and ``outside`` bool."""

    def __init__(self, row: Row, task: Task) -> None:
        self.row, self.task = row, task
        anchor, edited = (
            decode_rgb(data) for data in (row["anchor"], row["candidates"][row["choice"]]["image"])
        )
        self.reverse = task.direction == "reverse"
        pair = as_pair(task, anchor, edited, "", "")
        self.input, self.target = pair.input, pair.target
        self.inside, self.outside = Region.from_row(row).metric_regions(task.region)

    def with_pictures(self, i: np.ndarray, tar: np.ndarray) -> Row:
        """The input row of the score stage, with other pictures."""
        anchor, edited = (tar, i) if self.reverse else (i, tar)
        raw = mean_change(as_float(i), as_float(tar), self.outside)
        candidate = {**self.row["candidates"][self.row["choice"]], "change_outside_raw": raw}
        candidate["image"] = encode_png(edited)
        return {**self.row, "anchor": encode_png(anchor), "candidates": [candidate]}


Fault = Callable[[Pair, Pair, np.random.Generator], Row | None]
"""Spoils the first pair, possibly with the second pair's pictures; None if the fault does not apply."""


def _unchanged(pair: Pair, other: Pair, rng: np.random.Generator) -> Row | None:
    return pair.with_pictures(pair.input, pair.input)


def _other_target(pair: Pair, other: Pair, rng: np.random.Generator) -> Row | None:
    return pair.with_pictures(pair.input, other.target)


def _outside(pair: Pair, other: Pair, rng: np.random.Generator) -> Row | None:
    """A third of the picture, outside the edited region, is replaced by another picture's pixels."""
    if pair.outside is None:
        return None
    columns = np.where(pair.outside.any(0))[0]
    strip = np.zeros_like(pair.outside)
    strip[:, columns[: len(columns) // 3]] = True
    spoiled = np.where((strip & pair.outside)[..., None], other.target, pair.target)
    return pair.with_pictures(pair.input, spoiled) if (spoiled != pair.target).any() else None


def _swapped(pair: Pair, other: Pair, rng: np.random.Generator) -> Row | None:
    return pair.with_pictures(pair.target, pair.input)


def _noise(pair: Pair, other: Pair, rng: np.random.Generator) -> Row | None:
    return pair.with_pictures(pair.input, rng.integers(0, 256, pair.target.shape, np.uint8))


def _wrong_color(pair: Pair, other: Pair, rng: np.random.Generator) -> Row | None:
    """The new object is there, in a wrong colour."""
    if pair.task.name not in ("local", "add", "color"):
        return None
    turned = cv2.cvtColor(pair.target, cv2.COLOR_RGB2HSV)
    turned[..., 0] = (turned[..., 0].astype(int) + 60) % 180
    turned = cv2.cvtColor(turned, cv2.COLOR_HSV2RGB)
    return pair.with_pictures(pair.input, np.where(pair.inside[..., None], turned, pair.target))


def _not_removed(pair: Pair, other: Pair, rng: np.random.Generator) -> Row | None:
    """The object is still there. A little noise makes the pictures differ."""
    if pair.task.name != "remove":
        return None
    noisy = np.clip(pair.input + rng.integers(-6, 7, pair.input.shape), 0, 255).astype(np.uint8)
    return pair.with_pictures(pair.input, noisy)


def _over_edited(pair: Pair, other: Pair, rng: np.random.Generator) -> Row | None:
    """The target fits its caption, but the whole picture is mirrored and brighter."""
    if pair.outside is None:
        return None
    mirrored = np.ascontiguousarray(pair.target[:, ::-1])
    return pair.with_pictures(pair.input, adjust(mirrored, Adjustment("brighten", "slightly")))


def _one_level(pair: Pair, other: Pair, rng: np.random.Generator) -> Row | None:
    return pair.with_pictures(pair.input, np.clip(pair.input.astype(int) + 1, 0, 255).astype(np.uint8))


FAULTS: dict[str, Fault | None] = {
    "(not planted)": None,
    "a: the target is the input": _unchanged,
    "b: another row's target": _other_target,
    "c: an edit outside the region": _outside,
    "d: input and target swapped": _swapped,
    "e: noise": _noise,
    "f: wrong colour": _wrong_color,
    "g: nothing removed": _not_removed,
    "h: the whole picture edited": _over_edited,
    "i: one level brighter": _one_level,
}


def decide(rows: Sequence[Row], score: Score, filters: Sequence[Filter]) -> list[list[str]]:
    """The reasons of each filter for rejecting rows with one candidate; empty for a row that it keeps."""
    reasons: list[list[str]] = [[] for _ in filters]
    for start in range(0, len(rows), BATCH):
        part = [dict(row) for row in rows[start : start + BATCH]]
        judged = score(pa.Table.from_pylist(part)).append_column("task", [[r["task"] for r in part]])
        for found, filter_ in zip(reasons, filters, strict=True):
            found += filter_(judged)["reason"].to_pylist()
    return reasons


def plant(fault: Fault | None, pairs: Sequence[Pair], rng: np.random.Generator) -> list[Row]:
    """The pairs to which a fault applies, each spoiled once; None spoils nothing."""
    rows = []
    for index, pair in enumerate(pairs):
        other = pairs[(index + 1 + int(rng.integers(len(pairs) - 1))) % len(pairs)]
        row = pair.with_pictures(pair.input, pair.target) if fault is None else fault(pair, other, rng)
        if row is not None:
            rows.append(row)
    return rows


def cells(rows: Sequence[Row], reasons: Sequence[str], planted: bool) -> str:
    """The rejected share, the commonest reasons, and the tasks of spoiled pairs that were kept."""
    counts = Counter(reason for reason in reasons if reason)
    shown = ", ".join(f"{reason} {n}" for reason, n in counts.most_common(4))
    missed = Counter(row["task"] for row, reason in zip(rows, reasons, strict=True) if not reason)
    if planted and missed:
        shown += f" (kept: {', '.join(f'{task} {n}' for task, n in missed.items())})"
    return f"{counts.total() / max(len(rows), 1):.3f} | {shown}"


def kept_pairs(run: Path, tasks: Tasks, most: int) -> list[Pair]:
    """The first kept Prompt-to-Prompt pairs of the parts that the filter of a run has decided."""
    state = open_run(run).state
    done = [part for part in range(state.plan.parts) if state.done(state.steps["filter"], part)]
    rows = (row for part in done for row in kept_rows(state, part, "filter", READS))
    drawn = (row for row in rows if tasks[row["task"]].method == "prompt2prompt")
    return [Pair(row, tasks[row["task"]]) for row in islice(drawn, most)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run of a toybox manifest")
    parser.add_argument("--model", help="a file of editpairs calibrate: its decisions are told too")
    parser.add_argument("--pairs", type=int, default=200, help="spoil at most so many pairs")
    options = parser.parse_args()
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", [], STAGES)
    tasks, config = tasks_of(manifest), manifest.section("filter", FilterConfig)
    filters = [Filter(config, tasks)]
    heads = ["rejected", "by the reason"]
    if options.model:
        model = read_model(Path(options.model))
        filters.append(Filter(config.model_copy(update={"model": model}), tasks))
        heads += ["rejected, calibrated", "by the reason"]
    pairs = kept_pairs(options.run, tasks, options.pairs)
    score = Score(manifest.section("score", ScoreConfig), tasks)
    rng = np.random.default_rng(0)
    lines = [f"| fault | planted | {' | '.join(heads)} |", "|---|---:" + "|---:|---" * len(filters) + "|"]
    for name, fault in track(FAULTS.items(), "planting faults"):
        rows = plant(fault, pairs, rng)
        found = [cells(rows, reasons, fault is not None) for reasons in decide(rows, score, filters)]
        lines.append(f"| {name} | {len(rows)} | {' | '.join(found)} |")
    table = "\n".join(lines)
    Console(soft_wrap=True).print(table, markup=False)
    command = f"python -m toybox.studies.planted_faults runs/{options.run.name}"
    calibrated = ""
    if options.model:
        command += f" --model {options.model}"
        calibrated = f"\nThe last two columns are of the calibrated filter `{options.model}`."
    REPORT.write_text(
        f"# Planted faults\n\n`{command}`, {date.today()}. Faults were\n"
        f"planted in {len(pairs)} kept Prompt-to-Prompt pairs of a toybox run. The score and filter stages\n"
        "of `manifests/toybox.yaml` then decided about them. A row gives the number of spoiled pairs, the\n"
        f"rejected share, and the bounds that rejected them.{calibrated}\n\n{table}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
