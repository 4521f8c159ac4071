"""Edits computed in their regions only against edits computed whole: the same rows, noise and masks.

    python -m toybox.studies.sparse_edits runs/toybox runs/toybox-91 --edits 400

Each row's first candidate is drawn in every way (``edit.region``, ``edit.region_halo``). Right: by the judge,
in the pair as published. PSNR: inside the mask, against the whole edit. CPU seconds: of the edit stage. All
ways take turns, batch by batch. The sheet shows the pairs whose pictures differ most.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.progress import track

from editor.evaluation.intervals import mean_intervals
from pipeline.manifest.manifest import Manifest, read_manifest
from pipeline.shown import plain_table
from pipeline.views.contact_sheet import draw
from pipeline.views.pairs import Pair
from pipeline.views.rows import rows_of_run
from stages import STAGES
from stages.edit.config import EditConfig
from stages.edit.stage import Edit
from stages.pair import as_pair
from stages.pictures.png import decode_rgb, encode_png
from stages.pictures.region import MaskedRegion
from stages.tasks import Tasks
from toybox.evaluation.evaluate_edits import is_right
from toybox.evaluation.judge import Judge
from toybox.studies.mask_ablation import READS, ROOT, TASKS, first_candidates

WAYS: Mapping[str, Mapping[str, Any]] = {
    "whole": {"region": "whole"},
    "support": {"region": "support"},
    "schedule": {"region": "schedule"},
    "schedule, halo 0": {"region": "schedule", "region_halo": 0.0},
}
SHOWN = 10

Row = Mapping[str, Any]


@dataclass
class Drawn:
    """The edits drawn in one way: pictures uint8 [h,w,3], whether each is right, and the CPU seconds."""

    stage: Edit
    pictures: list[np.ndarray] = field(default_factory=list)
    anchors: list[np.ndarray] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    seconds: float = 0.0


def edit_stage(manifest: Manifest, tasks: Tasks, way: Mapping[str, Any]) -> Edit:
    """The edit stage with each task's first candidate only."""
    config = manifest.section("edit", EditConfig)
    return Edit(EditConfig(**{**dict(config), "candidates": {}, **way}), tasks)


def psnr_inside(tasks: Tasks, row: Row, whole: np.ndarray, other: np.ndarray) -> float:
    """The peak signal-to-noise ratio in dB, where the mask is above 0; infinite for equal pictures."""
    task = tasks[row["task"]]
    inside = MaskedRegion.from_row(row).edit_mask(task.region, task.candidates[0].mask) > 0
    error = ((whole[inside] / 255.0 - other[inside] / 255.0) ** 2).mean()
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def draw_all(rows: Sequence[Row], manifest: Manifest, tasks: Tasks) -> dict[str, Drawn]:
    """Draw and judge all rows in every way."""
    judge = Judge.load()
    ways = {name: Drawn(edit_stage(manifest, tasks, way)) for name, way in WAYS.items()}
    batch = manifest.section("edit", EditConfig).batch
    for start in track(range(0, len(rows) - batch + 1, batch), "edits"):
        part = rows[start : start + batch]
        for drawn in ways.values():
            began = time.process_time()
            made = drawn.stage(pa.Table.from_pylist(list(part))).to_pylist()
            drawn.seconds += time.process_time() - began
            for row, each in zip(part, made, strict=True):
                anchor, picture = decode_rgb(each["anchor"]), decode_rgb(each["candidates"][0]["image"])
                task = tasks[row["task"]]
                pair = as_pair(task, anchor, picture, row["caption"], row["output_caption"])
                drawn.pictures.append(picture)
                drawn.anchors.append(anchor)
                drawn.right.append(float(is_right(judge, task, pair)))
    return ways


def sheet(rows: Sequence[Row], tasks: Tasks, whole: Drawn, other: Drawn, psnr: Sequence[float]) -> bytes:
    """The pairs that differ most: whole, mask, sparse."""
    pairs = []
    for index in np.argsort(psnr)[:SHOWN]:
        row = rows[index]
        region = MaskedRegion.from_row(row)
        mask = region.edit_mask(tasks[row["task"]].region, tasks[row["task"]].candidates[0].mask)
        said = "right" if whole.right[index] else "wrong", "right" if other.right[index] else "wrong"
        text = f"{row['instruction']} (whole {said[0]}, sparse {said[1]}, {psnr[index]:.0f} dB)"
        pairs.append(
            Pair(
                id=row["id"],
                task=row["task"],
                instruction=text,
                input_png=encode_png(whole.pictures[index]),
                target_png=encode_png(other.pictures[index]),
                mask_png=encode_png(np.round(mask * 255).astype(np.uint8)),
                input_caption=row["caption"],
                output_caption=row["output_caption"],
                scores={},
            )
        )
    return draw(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs of the toybox")
    parser.add_argument("--edits", type=int, default=400, help="at most so many edits")
    parser.add_argument("--sheet", type=Path, help="a PNG to write; it compares with the way of --of")
    parser.add_argument("--of", default="schedule", choices=list(WAYS)[1:])
    options = parser.parse_args()
    torch.set_num_threads(1)
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", [], STAGES)
    tasks = first_candidates(manifest, TASKS)
    found = (row for run in options.runs for row in rows_of_run(run, "mask", READS))
    rows = list(islice((row for row in found if row["task"] in TASKS), options.edits))
    ways = draw_all(rows, manifest, tasks)
    whole = ways["whole"]
    table = plain_table("way", "edits", "right", "right, against whole", "PSNR inside, dB", "CPU s an edit")
    for name, drawn in ways.items():
        count = len(drawn.pictures)
        psnr = [
            psnr_inside(tasks, row, a, b)
            for row, a, b in zip(rows, whole.pictures, drawn.pictures, strict=False)
        ]
        right, change = (
            mean_intervals(np.array(values)[:, None], range(count))[0]
            for values in (drawn.right, np.array(drawn.right) - np.array(whole.right))
        )
        low, middle = np.quantile(psnr, [0.1, 0.5])
        table.add_row(
            name,
            str(count),
            right.text(),
            change.text(),
            f"median {middle:.1f}, lowest tenth {low:.1f}",
            f"{drawn.seconds / count:.3f}",
        )
        if options.sheet and name == options.of:
            options.sheet.write_bytes(sheet(rows, tasks, whole, drawn, psnr))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
