"""Compare masks: draw every region edit of a run under each mask policy and each kind of fusion.

    python -m toybox.studies.mask_ablation runs/toybox-masks --half report       # docs/mask-ablation.md
    python -m toybox.studies.mask_ablation runs/toybox-masks --half tune --tune  # docs/mask-tuning.md

Rows, noise and grounded masks are the same in every variant. Only the mask M differs, or the way M acts on
the latents. The judge, which no filter uses, decides on success. It sees the picture as it would be published
(the outside pasted from the source if the task says so). The outside region is the same for all variants and
is measured before pasting. ``--tune`` varies weights and gates of the soft mask instead. ``--half`` uses half
of the captions, so that figures can be reported on captions that were not used for tuning.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from pipeline.manifest.manifest import Manifest, read_manifest, tasks_of
from pipeline.views.rows import rows_of_run
from stages import STAGES
from stages.candidate import Policy
from stages.edit.config import EditConfig
from stages.edit.prompt_to_prompt.fusion import Fusion
from stages.edit.prompt_to_prompt.windows import with_candidates
from stages.edit.stage import Edit
from stages.filter.model import read_model
from stages.filter.stage import Filter, FilterConfig
from stages.pair import as_pair
from stages.pictures.composite import paste_outside
from stages.pictures.fidelity import as_float, ssim
from stages.pictures.masks import fill_boxes, soft_mask
from stages.pictures.png import decode_rgb, encode_png
from stages.pictures.region import MaskedRegion, Region
from stages.score.stage import Score, ScoreConfig
from stages.tasks import Task, Tasks
from toybox.evaluation.evaluate_edits import is_right
from toybox.evaluation.judge import Judge

ROOT = Path(__file__).parents[2]
TASKS = ("local", "remove", "add", "texture", "color")
POLICIES: tuple[Policy, ...] = ("soft", "precise", "smooth", "box", "none")
FUSIONS: tuple[Fusion, ...] = ("schedule", "power", "lerp", "none")
WEIGHTS = ((0.5, 0.3, 0.2), (1 / 3, 1 / 3, 1 / 3), (0.7, 0.2, 0.1), (0.2, 0.5, 0.3), (0.2, 0.2, 0.6))
"""Weights of the precise, the smooth and the box mask. The first ones are the manifest's."""
GATES = (0.5, 1.25)
"""Factors on the tasks' gates."""
READS = {
    "plan": ["task", "seed"],
    "instruct": [
        "caption",
        "instruction",
        "output_caption",
        "edited_object",
        "original_object",
        "surroundings",
    ],
    "source": ["source_image"],
    "mask": ["boxes", "precise_mask", "smooth_mask", "soft_mask"],
}
BOOTSTRAPS = 1000

Row = Mapping[str, Any]


def half_of(row: Row) -> str:
    """The half of the captions that a row belongs to, by its id."""
    return "report" if int(row["id"], 16) % 2 else "tune"


@dataclass(frozen=True)
class Variant:
    """A way to draw the edits: the mask policy, the fusion of latents, and the tuned values."""

    label: str
    policy: Policy = "soft"
    fusion: Fusion = "schedule"
    weights: tuple[float, float, float] | None = None
    gates: float = 1.0

    def tasks(self, tasks: Tasks) -> Tasks:
        """Each task with its first candidate only, drawn in this way."""
        return Tasks({name: self._only(tasks[name]) for name in TASKS}, tasks.known)

    def row(self, row: Row) -> Row:
        """The row with the soft mask of these weights."""
        if self.weights is None:
            return row
        region = MaskedRegion.from_row(row)
        box = fill_boxes(region.boxes, region.precise.shape)
        mask = soft_mask(region.precise, region.smooth, box, self.weights)
        return {**row, "soft_mask": encode_png(np.round(mask * 255).astype(np.uint8))}

    def _only(self, task: Task) -> Task:
        first = task.candidates[0]
        gates = {key: min(1.0, getattr(first, key) * self.gates) for key in ("cross_until", "self_until")}
        only = first.model_copy(update={"mask": self.policy, **gates})
        return task.model_copy(update={"candidates": (only,)})


def first_candidates(manifest: Manifest, names: Sequence[str]) -> Tasks:
    """Some tasks of a manifest, each with its first candidate only."""
    stated = with_candidates(tasks_of(manifest), manifest.section("edit", EditConfig).candidates)
    only = {
        name: stated[name].model_copy(update={"candidates": stated[name].candidates[:1]}) for name in names
    }
    return Tasks(only, stated.known)


POLICY_VARIANTS = [
    *(Variant(policy, policy) for policy in POLICIES),
    *(Variant(f"soft, fusion {fusion}", fusion=fusion) for fusion in FUSIONS[1:]),
]
TUNING_VARIANTS = [
    *(Variant("soft, " + " / ".join(f"{w:.2g}" for w in weights), weights=weights) for weights in WEIGHTS),
    *(Variant(f"soft, gates x {factor:g}", gates=factor) for factor in GATES),
]


def measure(
    rows: Sequence[Row],
    tasks: Tasks,
    config: EditConfig,
    manifest: Manifest,
    judge: Judge,
    label: str,
    filters: Mapping[str, Filter],
) -> dict[str, list[float]]:
    """For each row's single candidate: ``right``, ``l1`` and ``ssim`` (outside, before pasting), and by the
    name of each filter whether it keeps the candidate."""
    unpasted = {name: task.model_copy(update={"composite": False}) for name, task in tasks.items()}
    edit = Edit(config.model_copy(update={"candidates": {}}), Tasks(unpasted, tasks.known))
    score = Score(manifest.section("score", ScoreConfig), tasks)
    figures: dict[str, list[float]] = {"right": [], "l1": [], "ssim": [], **{name: [] for name in filters}}
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
        scored = score(pa.Table.from_pylist(part)).append_column("task", [[row["task"] for row in part]])
        for name, filter_ in filters.items():
            figures[name] += [float(not reason) for reason in filter_(scored)["reason"].to_pylist()]
    return figures


def _pasted(task: Task, row: Row, anchor: np.ndarray, image: np.ndarray) -> np.ndarray:
    if not task.composite or task.candidates[0].mask == "none":
        return image
    mask = MaskedRegion.from_row(row).edit_mask(task.region, task.candidates[0].mask)
    return paste_outside(anchor, image, mask)


def _ssim_outside(task: Task, row: Row, anchor: np.ndarray, image: np.ndarray) -> float:
    _, outside = Region.from_row(row).metric_regions(task.region)
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
    parser.add_argument("--edits", type=int, default=1000, help="at most so many edits a row of the table")
    parser.add_argument("--tune", action="store_true", help="other weights and gates, not other masks")
    parser.add_argument("--model", help="a file of editpairs calibrate: what it keeps is told too")
    parser.add_argument("--half", choices=["all", "tune", "report"], default="all", help="of the captions")
    options = parser.parse_args()
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", [], STAGES)
    config = manifest.section("edit", EditConfig)
    tasks, judge = with_candidates(tasks_of(manifest), config.candidates), Judge.load()
    rows = [
        row
        for row in rows_of_run(options.run, "mask", READS)
        if row["task"] in TASKS and options.half in ("all", half_of(row))
    ][: options.edits]
    variants = TUNING_VARIANTS if options.tune else POLICY_VARIANTS
    by_hand = manifest.section("filter", FilterConfig)
    filters = {"kept": Filter(by_hand, tasks)}
    if options.model:
        model = read_model(Path(options.model))
        filters["kept, calibrated"] = Filter(by_hand.model_copy(update={"model": model}), tasks)
    lines = [
        f"| mask | edits | success | L1 outside | SSIM outside | {' | '.join(filters)} |",
        "|---|---:|---:|---:|---:|" + "---:|" * len(filters),
    ]
    for variant in variants:
        drawn = [variant.row(row) for row in rows]
        fused = config.model_copy(update={"fusion": variant.fusion})
        figures = measure(drawn, variant.tasks(tasks), fused, manifest, judge, variant.label, filters)
        cells = [interval(values) for values in figures.values()]
        lines.append(f"| {variant.label} | {len(rows)} | {' | '.join(cells)} |")
    Console(soft_wrap=True).print("\n".join(lines), markup=False)
    title = "The soft mask, tuned" if options.tune else "Masks, compared"
    flags = f"--half {options.half} --edits {options.edits}{' --tune' if options.tune else ''}"
    flags += f" --model {options.model}" if options.model else ""
    (ROOT / "docs" / f"mask-{'tuning' if options.tune else 'ablation'}.md").write_text(
        f"# {title}\n\n`python -m toybox.studies.mask_ablation runs/{options.run.name} {flags}`, "
        f"{date.today()}.\n\n"
        "Every line uses the same rows, noise and grounding. Success: the independent judge finds the\n"
        "edit right in the picture as published. L1 and SSIM: outside the edited region, the same region\n"
        "in every line, before the outside is pasted from the source. Kept: the share that the filter\n"
        "keeps, with the bounds by hand and calibrated. Means with 95 % bootstrap intervals. Tasks: "
        f"{', '.join(TASKS)}.\n\n" + "\n".join(lines) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
