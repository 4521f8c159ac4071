"""Edits of given pictures against edits of drawn ones: the same held-out scenes, captions, tasks and seeds.

    python -m toybox.studies.photographs --each 17

The given pictures are renders of the scenes. Every task's first candidate is drawn. A pair is right if the
judge reads each caption's content in its picture; a target, if it does so in Tar. ``outside`` is the mean
change of pixels away from the edit before the outside is pasted, of tasks that have one.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from stages import STAGES
from stages.edit.config import EditConfig
from stages.edit.stage import Edit, EditPhotographs
from stages.mask.stage import Mask, MaskConfig
from stages.pictures.png import decode_rgb, encode_png
from stages.source.stage import Source, SourceConfig
from stages.tasks import Tasks
from toybox.evaluation.evaluate_edits import shows
from toybox.evaluation.judge import Judge
from toybox.studies.mask_ablation import ROOT, first_candidates
from toybox.world.answers import changes, sample_description
from toybox.world.render import render
from toybox.world.scene import sample_held_out_scene
from toybox.world.wordings import wordings

TASKS = ("local", "remove", "texture", "background", "global", "color")
"""Prompt-to-Prompt's forward tasks: a reverse one cannot begin with a picture."""
WAYS: Mapping[str, Mapping[str, Any] | None] = {
    "drawn": None,
    "given": {},
    "given, source_guidance 4": {"source_guidance": 4.0},
    "given, source_guidance 2.5": {"source_guidance": 2.5},
    "given, source_guidance 4, skip 0.2": {"source_guidance": 4.0, "skip": 0.2},
    "given, source_guidance 4, euler_ancestral": {"source_guidance": 4.0, "sampler": "euler_ancestral"},
}
SHOWN = 12

Row = dict[str, Any]


@dataclass
class Judged:
    """The edits of one way; NaN where a row was rejected or does not have the figure."""

    kept: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    target: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)


def sample_rows(each: int, seed: int = 57) -> list[Row]:
    """``each`` rows of every task, of held-out scenes with a render. The result is always the same."""
    rows: list[Row] = []
    wanted = [task for _ in range(each) for task in TASKS]
    number = 0
    while wanted:
        rng = np.random.default_rng([seed, number])
        number += 1
        scene, description = sample_held_out_scene(rng, int(rng.choice([1, 2]))), sample_description(rng)
        options = changes(scene, description, wanted[0])
        if not options:
            continue
        task, change = wanted.pop(0), options[rng.integers(len(options))]
        verbs = ("change",) if task != "remove" else ("remove",)
        texts = [text for verb in verbs for text in wordings(task, verb, change.words)]
        rows.append(
            {
                "id": str(number),
                "task": task,
                "seed": number,
                "caption": description.of(scene),
                "instruction": texts[0] if texts else task,
                "output_caption": change.output_caption,
                "original_object": change.original_object,
                "edited_object": change.edited_object,
                "surroundings": change.surroundings,
                "source_image": encode_png(render(scene).image),
            }
        )
    return rows


def run_way(
    manifest: Manifest, tasks: Tasks, rows: Sequence[Row], way: Mapping[str, Any] | None, judge: Judge
) -> Judged:
    """Draw or give the sources, ground, edit and judge."""
    options = dict(way or {})
    edit_config = EditConfig(**{**dict(manifest.section("edit", EditConfig)), "candidates": {}})
    if sampler := options.pop("sampler", None):
        diffusion = edit_config.diffusion.model_copy(update={"sampler": sampler})
        edit_config = edit_config.model_copy(update={"diffusion": diffusion})
    edit_config = edit_config.model_copy(update=options)
    mask = Mask(manifest.section("mask", MaskConfig), tasks)
    source = None if way is not None else Source(manifest.section("source", SourceConfig), tasks)
    edit = Edit(edit_config, tasks) if way is None else EditPhotographs(edit_config, tasks)
    judged, size = Judged(), edit_config.batch
    for start in track(range(0, len(rows), size), "edits"):
        part = [dict(row) for row in rows[start : start + size]]
        for stage in (source, mask, edit):
            if stage is not None and (going := [row for row in part if row.get("status", "kept") == "kept"]):
                made = stage(pa.Table.from_pylist(going)).to_pylist()
                for row, columns in zip(going, made, strict=True):
                    row |= columns
        for row in part:
            _judge(judged, row, tasks, judge)
    return judged


def pair_of(row: Row, right: bool) -> Pair:
    """A row's first candidate with its verdict, for a sheet."""
    return Pair(
        id=row["id"],
        task=row["task"],
        instruction=f"{row['instruction']} ({'right' if right else 'wrong'})",
        input_png=row["anchor"],
        target_png=row["candidates"][0]["image"],
        mask_png=row["soft_mask"],
        input_caption=row["caption"],
        output_caption=row["output_caption"],
        scores={},
    )


def _judge(judged: Judged, row: Row, tasks: Tasks, judge: Judge) -> None:
    kept = row["status"] == "kept"
    judged.kept.append(float(kept))
    if not kept:
        for values in (judged.right, judged.target):
            values.append(0.0)
        judged.outside.append(float("nan"))
        return
    task, candidate = tasks[row["task"]], row["candidates"][0]
    target = shows(judge, task, decode_rgb(candidate["image"]), row["output_caption"])
    source = shows(judge, task, decode_rgb(row["anchor"]), row["caption"])
    judged.right.append(float(target and source))
    judged.target.append(float(target))
    outside = candidate["change_outside_raw"]
    judged.outside.append(float("nan") if outside is None else outside)
    judged.pairs.append(pair_of(row, target and source))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=17, help="edits of each task")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--sheet", type=Path, help="a PNG of the last way's first pairs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", [], STAGES)
    tasks = first_candidates(manifest, TASKS)
    rows, judge, console = sample_rows(options.each), Judge.load(), Console(width=170)
    table = plain_table("way", "rows", "drawn", "right pairs", "right targets", "outside", *TASKS)
    names = np.array([row["task"] for row in rows])
    for way in options.ways:
        judged = run_way(manifest, tasks, rows, WAYS[way], judge)
        shares = [
            mean_intervals(np.array(values)[:, None], range(len(rows)))[0].text()
            for values in (judged.right, judged.target)
        ]
        by_task = [f"{np.array(judged.right)[names == task].mean():.2f}" for task in TASKS]
        table.add_row(
            way,
            str(len(rows)),
            f"{np.mean(judged.kept):.2f}",
            *shares,
            f"{np.nanmean(judged.outside):.4f}",
            *by_task,
        )
        if options.sheet:
            options.sheet.write_bytes(draw(judged.pairs[:SHOWN]))
        console.print(table)


if __name__ == "__main__":
    main()
