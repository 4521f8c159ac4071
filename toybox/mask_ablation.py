"""Which mask makes the better edits? Every region edit of a run drawn under each policy and each fusion.

    python -m toybox.mask_ablation runs/toybox-eval --edits 200      # writes docs/mask-ablation.md

The same rows, noise, gates and grounded masks; only M differs, or how M holds the latents. An edit is a
success by the judge, which no filter uses, in the picture as it would be published (outside pasted from
the source where the task says so). Outside is the same for all, and measured before pasting. ``--half``
keeps to one half of the captions: what was tuned on one is reported on the other.
"""

import argparse
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from pipeline.manifest import Manifest, read_manifest, tasks_of
from stages import STAGES
from stages.edit import Edit, EditConfig, decode_row
from stages.edit.composite import paste_outside
from stages.edit.draw import candidate_mask
from stages.filter import Filter, choose
from stages.images import decode_mask, decode_rgb, encode_png
from stages.mask.soft_mask import regions
from stages.pair import as_pair
from stages.score import Score
from stages.score.fidelity import as_float, ssim
from stages.tasks import Candidate, Policy, Task, Tasks
from toybox.evaluate_edits import is_right
from toybox.judge import Judge
from toybox.run_rows import rows_of

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "mask-ablation.md"
TASKS = ("local", "remove", "add", "texture", "color")
POLICIES: tuple[Policy, ...] = ("soft", "precise", "smooth", "box", "none")
FUSIONS = ("schedule", "power", "lerp", "none")
READS = {
    "plan": ["caption", "task", "seed"],
    "instruct": ["instruction", "output_caption", "edited_object", "original_object", "surroundings"],
    "source": ["source_image"],
    "mask": ["boxes", "precise_mask", "smooth_mask", "soft_mask"],
}
BOOTSTRAPS = 1000

Row = Mapping[str, Any]


def half_of(row: Row) -> str:
    """Which half of the captions a row belongs to, by its id."""
    return "report" if int(row["id"], 16) % 2 else "tune"


def with_policy(task: Task, policy: Policy) -> Candidate:
    """The task's first candidate under another mask."""
    return task.candidates[0].model_copy(update={"mask": policy})


def measure(
    rows: Sequence[Row], tasks: Tasks, config: EditConfig, manifest: Manifest, judge: Judge, label: str
) -> dict[str, list[float]]:
    """Of each row's only candidate: ``right``, ``l1``, ``ssim`` (outside, before pasting) and ``kept``."""
    unpasted = Tasks({name: task.model_copy(update={"composite": False}) for name, task in tasks.items()})
    edit = Edit(config.model_copy(update={"candidates": {}}), unpasted)
    score = Score(manifest.section("score"), tasks)  # type: ignore[arg-type]
    bounds = Filter(manifest.section("filter"), tasks).bounds  # type: ignore[arg-type]
    figures: dict[str, list[float]] = {"right": [], "l1": [], "ssim": [], "kept": []}
    for start in track(range(0, len(rows), config.batch), label):
        part = [dict(row) for row in rows[start : start + config.batch]]
        drawn = edit(pa.Table.from_pylist(part)).to_pylist()
        for row, made in zip(part, drawn, strict=True):
            task = tasks[row["task"]]
            anchor, [candidate] = decode_rgb(made["anchor"]), made["candidates"]
            raw = decode_rgb(candidate["image"])
            figures["l1"].append(candidate["change_outside_raw"])
            figures["ssim"].append(_ssim_outside(task, row, anchor, raw))
            published = _pasted(task, row, anchor, raw)
            pair = as_pair(task, anchor, published, row["caption"], row["output_caption"])
            figures["right"].append(float(is_right(judge, task, pair)))
            candidate["image"] = encode_png(published)
            row |= {"anchor": made["anchor"], "candidates": [candidate]}
        for scores, row in zip(score(pa.Table.from_pylist(part))["scores"].to_pylist(), part, strict=True):
            figures["kept"].append(float(not choose(scores, bounds[row["task"]]).reason))
    return figures


def _pasted(task: Task, row: Row, anchor: np.ndarray, image: np.ndarray) -> np.ndarray:
    if not task.composite or task.candidates[0].mask == "none":
        return image
    return paste_outside(anchor, image, candidate_mask(task, task.candidates[0], decode_row(row)))


def _ssim_outside(task: Task, row: Row, anchor: np.ndarray, image: np.ndarray) -> float:
    precise = decode_mask(row["precise_mask"])
    _, outside = regions(task.region, precise, np.array(row["boxes"], np.float32))
    value = ssim(as_float(anchor), as_float(image), outside)
    return float("nan") if value is None else value


def interval(values: Sequence[float]) -> str:
    """The mean and its 95 % interval by bootstrap."""
    numbers = np.array(values)[~np.isnan(values)]
    rng = np.random.default_rng(0)
    means = rng.choice(numbers, (BOOTSTRAPS, len(numbers))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{numbers.mean():.3f} ({low:.3f}-{high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run of the toybox's manifest")
    parser.add_argument("--edits", type=int, default=200, help="at most so many edits a row of the table")
    parser.add_argument("--half", choices=["all", "tune", "report"], default="all", help="of the captions")
    options = parser.parse_args()
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", [], STAGES)
    tasks, judge = tasks_of(manifest), Judge.load()
    config = cast(EditConfig, manifest.section("edit"))
    rows = [
        row
        for row in rows_of(options.run, "mask", READS)
        if row["task"] in TASKS and options.half in ("all", half_of(row))
    ][: options.edits]
    variants: list[tuple[str, Policy, str]] = [(policy, policy, config.fusion) for policy in POLICIES]
    variants += [(f"soft, fusion {fusion}", "soft", fusion) for fusion in FUSIONS if fusion != config.fusion]
    lines = [
        "| mask | edits | success | L1 outside | SSIM outside | kept |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for label, policy, fusion in variants:
        masked = Tasks(
            {
                name: tasks[name].model_copy(update={"candidates": (with_policy(tasks[name], policy),)})
                for name in TASKS
            }
        )
        variant = config.model_copy(update={"fusion": fusion})
        figures = measure(rows, masked, variant, manifest, judge, label)
        cells = [interval(figures[name]) for name in ("right", "l1", "ssim", "kept")]
        lines.append(f"| {label} | {len(rows)} | {' | '.join(cells)} |")
    Console(soft_wrap=True).print("\n".join(lines), markup=False)
    REPORT.write_text(
        f"# Masks, compared\n\n`python -m toybox.mask_ablation runs/{options.run.name} --edits "
        f"{options.edits} --half {options.half}`, {date.today()}.\n\n"
        "The same rows, noise, gates and grounding under each mask. Success is the independent judge's, in\n"
        "the picture as published; L1 and SSIM are of the same outside for all, before it is pasted from\n"
        "the source; kept is the share that the filter keeps. Means with 95 % bootstrap intervals;\n"
        f"tasks: {', '.join(TASKS)}.\n\n" + "\n".join(lines) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
