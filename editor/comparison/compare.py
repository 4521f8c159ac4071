"""Train every arm with every seed, edit the same pictures with each editor, and measure.

caches/                     latents, shared by arms with the same pairs
ARM-seedN/                  a training, as ``editpairs train`` writes it
ARM-seedN/evaluation/       its figures, as ``editpairs evaluate`` writes them
comparison.json, sheet.png  the differences
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from editor.comparison.arms import Arm
from editor.comparison.paired import Figures
from editor.data.edit_sets import EditSet
from editor.data.examples import pair_files
from editor.data.latents import LatentCache, content_of
from editor.editing.editor import Editor
from editor.evaluation.evaluate import evaluate
from editor.evaluation.metrics import Measures
from editor.evaluation.results import write_results
from editor.training.start import train
from pipeline.errors import UserError
from pipeline.shown import Terminal
from pipeline.store.outputs import new_folder

EVALUATION = "evaluation"
_NAMES = ("id", "group", "task", "chosen_task")
"""Columns of ``edits.parquet`` that are no figures."""


@dataclass(frozen=True)
class Plan:
    """What is compared, and on which edits."""

    folder: Path
    arms: Sequence[Arm]
    seeds: Sequence[int]
    edits: str
    side: int | None = None
    rows: int | None = None
    predictor: str | None = None
    batch: int = 8

    def editor(self, arm: Arm, seed: int) -> Path:
        """The folder of a trained editor."""
        return self.folder / arm.training(self.folder, seed).name / "editor"

    def edit_set(self, trained: frozenset[str]) -> EditSet:
        """The edits, without those of captions that an arm was trained on."""
        return EditSet(self.edits, side=self.side, trained=trained)


def train_all(plan: Plan, console: Terminal) -> frozenset[str]:
    """Train what is not trained yet, seed by seed.

    Returns:
        The captions that some arm was trained on.

    Raises:
        UserError: as :func:`editor.training.start.train`.
        StageError: the loss is not finite.
    """
    captions: frozenset[str] = frozenset()
    for seed in plan.seeds:
        for arm in plan.arms:
            console.print(f"{arm.label} ({arm.text}), seed {seed}")
            cache = arm.cache(plan.folder)
            train(arm.training(plan.folder, seed), console, cache)
            captions |= LatentCache(cache, "train").captions()
    return captions


def measure_all(
    plan: Plan, trained: frozenset[str], measures: Measures, console: Terminal
) -> dict[str, list[Figures]]:
    """The figures of every arm, one element per seed. What is measured already is read.

    Raises:
        UserError: no edit can be used.
    """
    found: dict[str, list[Figures]] = {arm.label: [] for arm in plan.arms}
    for seed in plan.seeds:
        for arm in plan.arms:
            folder = plan.editor(arm, seed).parent / EVALUATION
            _measure(plan, trained, measures, plan.editor(arm, seed), folder)
            found[arm.label].append(read_figures(folder))
            console.print(f"{arm.label}, seed {seed}: {len(found[arm.label][-1].ids)} edits measured")
    return found


def _measure(
    plan: Plan, trained: frozenset[str], measures: Measures, editor_folder: Path, folder: Path
) -> None:
    editor = Editor.from_pretrained(editor_folder, plan.predictor)
    edits = plan.edit_set(trained)
    about: dict[str, Any] = {
        "editor": str(editor_folder),
        "data": f"{plan.edits} ({edits.format})",
        "content": content_of(pair_files(plan.edits)).hexdigest(),
        "trained captions left out": len(trained),
        "guidance": vars(editor.guidance),
        "models and the pixels they see": measures.models,
        "side": plan.side or "as it is",
        "rows": plan.rows or "all",
        "predictor": plan.predictor or "none",
    }
    written = folder / "results.json"
    if written.exists():
        earlier = json.loads(written.read_text(encoding="utf-8"))
        if {key: earlier.get(key) for key in about} == about:
            return
        shutil.rmtree(folder)
    evaluation = evaluate(editor, edits, measures, rows=plan.rows, batch=plan.batch)
    with new_folder(folder) as new:
        write_results(new, evaluation, about)


def read_figures(folder: Path) -> Figures:
    """The figures of an evaluation.

    Raises:
        UserError: two edits have one id, so that they cannot be paired.
    """
    table = pq.read_table(folder / "edits.parquet")
    columns = [name for name in table.column_names if name not in _NAMES]
    values = np.array([table[name].to_numpy(zero_copy_only=False) for name in columns], np.float64)
    ids = table["id"].to_pylist()
    if len(set(ids)) < len(ids):
        raise UserError(f"{folder}: two edits have one id, so they cannot be paired")
    return Figures(ids, table["group"].to_pylist(), table["task"].to_pylist(), columns, values.T)
