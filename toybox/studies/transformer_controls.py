"""Controls of joint attention on the toybox's transformer: the same rows, noise and masks in every way.

    python -m toybox.studies.transformer_controls --each 20 --ways controls --sheet sheet.png
    python -m toybox.studies.transformer_controls --each 10 --ways windows

Sources are drawn by the manifest's model and grounded; each row is then edited once in every way. A pair is
right if the judge reads both captions' content in its pictures, as published. ``outside, latents``: the
largest difference between an edit and its source where M = 0. ``outside, pixels``: the mean change away from
the edit before the outside is pasted. CPU seconds: of the edit stage, sources included.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.progress import track
from torch.nn.functional import adaptive_max_pool2d

from editor.evaluation.intervals import mean_intervals
from pipeline.manifest.manifest import Manifest, read_manifest
from pipeline.shown import plain_table
from pipeline.views.contact_sheet import draw
from pipeline.views.pairs import Pair
from stages import STAGES
from stages.candidate import Candidate
from stages.edit.config import EditConfig
from stages.edit.stage import Edit
from stages.mask.stage import Mask, MaskConfig
from stages.pictures.png import decode_rgb
from stages.pictures.region import MaskedRegion
from stages.source.stage import Source, SourceConfig
from stages.tasks import Tasks
from toybox.evaluation.evaluate_edits import shows
from toybox.evaluation.judge import Judge
from toybox.studies.mask_ablation import ROOT, first_candidates
from toybox.studies.photographs import TASKS, Row, pair_of, sample_rows

HELD = {"hold": "exact", "mask_attention": False}
LOOSE = {"hold": "none", "mask_attention": True}


@dataclass(frozen=True)
class Way:
    """Keys of the section ``edit``, and of every candidate that is not of the whole picture."""

    edit: Mapping[str, Any]
    candidate: Mapping[str, Any] = field(default_factory=dict)


def _controls() -> dict[str, Way]:
    ways = {}
    for control in ("qk", "p2p", "kv"):
        cross = {"cross_until": 0.8} if control == "p2p" else {}
        ways[f"{control}, not held"] = Way({**LOOSE, "control": control}, cross)
        ways[f"{control}, held"] = Way({**HELD, "control": control}, cross)
    ways["no control, held"] = Way(HELD, {"self_until": 0.0})
    ways["qk, held, in its region"] = Way({**HELD, "control": "qk", "region": "schedule"})
    return ways


def _windows() -> dict[str, Way]:
    ways = {f"until {until}": Way(HELD, {"self_until": until}) for until in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}
    for until in (0.4, 0.8):
        ways[f"until {until}, first half of the blocks"] = Way({**HELD, "blocks": 0.5}, {"self_until": until})
        ways[f"until {until}, last half"] = Way({**HELD, "blocks": (3, 4, 5)}, {"self_until": until})
    return ways


WAYS = {"controls": _controls, "windows": _windows}


@dataclass
class Judged:
    """The edits of one way, a figure for each row."""

    right: list[float] = field(default_factory=list)
    latents: list[float] = field(default_factory=list)
    pixels: list[float] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    seconds: float = 0.0


class Kept:
    """Stands in the place of a model's ``sample`` and keeps what it drew last."""

    sample: Callable[..., torch.Tensor]
    last: torch.Tensor

    def __call__(self, *given: Any, **named: Any) -> torch.Tensor:
        self.last = self.sample(*given, **named)
        return self.last


def grounded_rows(manifest: Manifest, tasks: Tasks, each: int, batch: int) -> list[Row]:
    """Rows whose sources are drawn and whose objects are found; a multiple of ``batch``."""
    rows: list[Row] = [dict(row) for row in sample_rows(each)]
    stages = (
        Source(manifest.section("source", SourceConfig), tasks),
        Mask(manifest.section("mask", MaskConfig), tasks),
    )
    for stage in stages:
        made: list[Row] = []
        for start in track(range(0, len(rows), stage.config.batch), type(stage).__name__):
            part = rows[start : start + stage.config.batch]
            records = stage(pa.Table.from_pylist(part)).to_pylist()
            made += [row | record for row, record in zip(part, records, strict=True)]
        rows = [row for row in made if row["status"] == "kept"]
    return rows[: len(rows) // batch * batch]


def edit_stage(manifest: Manifest, tasks: Tasks, way: Way) -> Edit:
    """The edit stage with one candidate a task, changed as the way says."""
    config = manifest.section("edit", EditConfig)
    changed = {}
    for name, task in tasks.items():
        content = task.candidates[0].model_dump(exclude_defaults=True)
        changed[name] = (Candidate.model_validate({**content, **way.candidate}),)
    return Edit(EditConfig(**{**dict(config), **way.edit, "candidates": changed}), tasks)


def outside_in_latents(tasks: Tasks, row: Row, source: torch.Tensor, edit: torch.Tensor) -> float:
    """The largest difference where M, pooled to the latents' size, is 0; NaN if it is nowhere."""
    task = tasks[row["task"]]
    mask = MaskedRegion.from_row(row).edit_mask(task.region, task.candidates[0].mask)
    outside = adaptive_max_pool2d(torch.from_numpy(mask)[None], source.shape[-2:])[0] == 0
    return float((source - edit).abs()[:, outside].max()) if outside.any() else float("nan")


def edit_all(manifest: Manifest, tasks: Tasks, way: Way, rows: Sequence[Row], judge: Judge) -> Judged:
    """Edit and judge all rows in one way."""
    stage, judged = edit_stage(manifest, tasks, way), Judged()
    latents = Kept()
    assert stage.drawing is not None, "the tasks are drawn"
    latents.sample = stage.drawing.model.sample
    stage.drawing.model.sample = latents  # type: ignore[method-assign]
    size = stage.config.batch
    for start in track(range(0, len(rows), size), "edits"):
        part, begun = rows[start : start + size], time.process_time()
        records = stage(pa.Table.from_pylist(list(part))).to_pylist()
        judged.seconds += time.process_time() - begun
        sources, edits = latents.last.split(size)
        for row, record, source, edit in zip(part, records, sources, edits, strict=True):
            judged.latents.append(outside_in_latents(tasks, row, source, edit))
            _judge(judged, row | record, tasks, judge)
    return judged


def _judge(judged: Judged, row: Row, tasks: Tasks, judge: Judge) -> None:
    task, candidate = tasks[row["task"]], row["candidates"][0]
    right = shows(judge, task, decode_rgb(row["anchor"]), row["caption"])
    right = right and shows(judge, task, decode_rgb(candidate["image"]), row["output_caption"])
    judged.right.append(float(right))
    change = candidate["change_outside_raw"]
    judged.pixels.append(float("nan") if change is None else change)
    judged.pairs.append(pair_of(row, right))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=20, help="edits of each task")
    parser.add_argument("--ways", choices=list(WAYS), default="controls")
    parser.add_argument("--sheet", type=Path, help="a PNG: two pairs a task of the last way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    manifest = read_manifest(ROOT / "manifests" / "toybox-dit.yaml", [], STAGES)
    tasks, judge = first_candidates(manifest, TASKS), Judge.load()
    rows = grounded_rows(manifest, tasks, options.each, manifest.section("edit", EditConfig).batch)
    names, console = np.array([row["task"] for row in rows]), Console(width=170)
    title = f"{6 * options.each} rows planned, {len(rows)} grounded"
    table = plain_table("way", "right pairs", "outside, latents", "outside, pixels", "CPU s an edit", *TASKS)
    for name, way in WAYS[options.ways]().items():
        judged = edit_all(manifest, tasks, way, rows, judge)
        right = np.array(judged.right)
        (share,) = mean_intervals(right[:, None], range(len(rows)))
        table.add_row(
            name,
            share.text(),
            f"{np.nanmax(judged.latents):.2g}",
            f"{np.nanmean(judged.pixels):.4f}",
            f"{judged.seconds / len(rows):.2f}",
            *(f"{right[names == task].mean():.2f}" for task in TASKS),
        )
        console.print(title, table)
        if options.sheet:
            shown = [pair for task in TASKS for pair in judged.pairs if pair.task == task]
            options.sheet.write_bytes(draw([p for t in TASKS for p in [q for q in shown if q.task == t][:2]]))


if __name__ == "__main__":
    main()
