"""Do the default filters find faults? Faults are planted in the kept pairs of a run.

    python -m toybox.studies.planted_faults runs/toybox-eval          # writes docs/planted-faults.md

Each fault spoils a kept Prompt-to-Prompt pair. The manifest's score and filter stages then decide about the
spoiled pair as about any other. Vision tasks are left out: their targets are computed.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from pipeline.manifest.manifest import read_manifest, tasks_of
from pipeline.views.rows import rows_of_run
from stages import STAGES
from stages.edit.annotations.adjust import Adjustment, adjust
from stages.filter.stage import Filter, FilterConfig
from stages.pair import as_pair
from stages.pictures.fidelity import as_float, mean_change
from stages.pictures.png import decode_rgb, encode_png
from stages.pictures.region import Region
from stages.score.stage import Score, ScoreConfig
from stages.tasks import Task

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


def decide(rows: Sequence[Row], score: Score, filter_: Filter) -> list[str]:
    """The decisions of score and filter about rows with one candidate; an empty reason means kept."""
    reasons: list[str] = []
    for start in range(0, len(rows), BATCH):
        part = [dict(row) for row in rows[start : start + BATCH]]
        judged = score(pa.Table.from_pylist(part)).append_column("task", [[r["task"] for r in part]])
        reasons += filter_(judged)["reason"].to_pylist()
    return reasons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run of the toybox's manifest")
    run = parser.parse_args().run
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", [], STAGES)
    tasks = tasks_of(manifest)
    kept = [row for row in rows_of_run(run, "filter", READS) if tasks[row["task"]].method == "prompt2prompt"]
    pairs = [Pair(row, tasks[row["task"]]) for row in kept]
    score = Score(manifest.section("score", ScoreConfig), tasks)
    filter_ = Filter(manifest.section("filter", FilterConfig), tasks)
    rng = np.random.default_rng(0)
    lines = ["| fault | planted | rejected | by the reason |", "|---|---:|---:|---|"]
    for name, fault in track(FAULTS.items(), "planting faults"):
        by_row: dict[str, Row] = {}
        for index, pair in enumerate(pairs):
            other = pairs[(index + 1 + int(rng.integers(len(pairs) - 1))) % len(pairs)]
            spoiled = (
                pair.with_pictures(pair.input, pair.target) if fault is None else fault(pair, other, rng)
            )
            if spoiled is not None:
                by_row[pair.row["id"]] = spoiled
        reasons = decide(list(by_row.values()), score, filter_)
        counts = Counter(reason for reason in reasons if reason)
        shown = ", ".join(f"{reason} {n}" for reason, n in counts.most_common(4))
        lines.append(f"| {name} | {len(reasons)} | {counts.total() / len(reasons):.3f} | {shown} |")
        missed: dict[str, int] = defaultdict(int)
        for row, reason in zip(by_row.values(), reasons, strict=True):
            missed[row["task"]] += not reason
        if fault is not None and any(missed.values()):
            lines[-1] = lines[-1][:-2] + f" (kept: {', '.join(f'{t} {n}' for t, n in missed.items() if n)}) |"
    table = "\n".join(lines)
    Console(soft_wrap=True).print(table, markup=False)
    text = (
        f"# Planted faults\n\n`python -m toybox.studies.planted_faults runs/{run.name}`, "
        f"{date.today()}. Faults\n"
        f"were planted in the {len(pairs)} kept Prompt-to-Prompt pairs of a toybox run. The score and filter "
        "stages of\n`manifests/toybox.yaml` then decided about them. A row gives the number of spoiled "
        "pairs, the rejected share,\nand the bound that rejected them.\n\n" + table + "\n"
    )
    REPORT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
