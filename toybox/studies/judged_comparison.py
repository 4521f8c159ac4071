"""The judge's view of a comparison of editors: done, right and error outside, with paired differences.

    python -m toybox.studies.judged_comparison runs/comparison --predicted

The comparison was made by ``editpairs compare``. Every editor edits the same rendered scenes with held-out
combinations, with the same noise. ``--predicted`` adds Emu Edit's third condition: each arm once more, told
the tasks that the toybox's predictor chooses instead of the true ones.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from editor.comparison.paired import Figures, paired
from editor.comparison.results import RESULTS, Arms, difference_table, write_json
from editor.model.loading import load_editor, load_guidance
from stages.base import Weights
from stages.models.classifier import SequenceClassifier
from toybox.evaluation.evaluate_editor import edited
from toybox.evaluation.held_out_edits import HeldOutEdit, sample_edits
from toybox.evaluation.judge import Judge
from toybox.recipes.train_task_predictor import FOLDER, LENGTH

COLUMNS = ("done", "right", "error outside")
JUDGED = "judged.json"


def predicted_tasks(edits: Sequence[HeldOutEdit], known: Sequence[str]) -> list[str]:
    """The most probable of an editor's tasks for each instruction; the true one if it cannot be read."""
    found = SequenceClassifier(Weights(model=str(FOLDER)), LENGTH).predict(
        [edit.instruction for edit in edits], 64
    )
    return [
        max(known, key=lambda name: each.get(name, 0.0)) if each else edit.task
        for edit, each in zip(edits, found, strict=True)
    ]


def judged(
    editor: Path, edits: Sequence[HeldOutEdit], judge: Judge, tasks: Sequence[str] | None = None
) -> Figures:
    """The judge's figures of one editor; ``tasks`` as it is told them, None for the true ones."""
    network = load_editor(Weights(model=str(editor.resolve())))
    pictures = edited(network, edits, load_guidance(editor), tasks=tasks)
    values = [
        (edit.is_done(seen.content), edit.is_right(seen.content), edit.error_outside(picture))
        for edit, picture, seen in zip(edits, pictures, judge.look(pictures), strict=True)
    ]
    return Figures(
        [str(number) for number in range(len(edits))],
        [str(edit.scene) for edit in edits],
        [edit.task for edit in edits],
        COLUMNS,
        np.array(values, np.float64),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--each", type=int, default=15, help="edits of each task")
    parser.add_argument("--predicted", action="store_true", help="also with predicted tasks")
    options = parser.parse_args()
    content = json.loads((options.comparison / RESULTS).read_text(encoding="utf-8"))
    edits, judge, console = sample_edits(options.each), Judge.load(), Console(width=150)
    texts, figures = dict[str, str](), dict[str, list[Figures]]()
    for label, folders in content["editors"].items():
        editors = [Path(folder) for folder in folders]
        texts[label], figures[label] = (
            content["arms"][label],
            [judged(editor, edits, judge) for editor in editors],
        )
        if options.predicted:
            known = load_editor(Weights(model=str(editors[0].resolve()))).table.names
            tasks, name = predicted_tasks(edits, known), f"{label} predicted"
            right = np.mean([edit.task == task for edit, task in zip(edits, tasks, strict=True)])
            console.print(f"{label}: {right:.3f} of the predicted tasks are right")
            texts[name] = f"{texts[label]}, predicted tasks"
            figures[name] = [judged(editor, edits, judge, tasks) for editor in editors]
    first, *others = figures
    found = {label: paired(figures[first], figures[label]) for label in others}
    about = {"edits": f"{len(edits)} held-out edits of the toybox, by its judge"}
    write_json(options.comparison / JUDGED, Arms(texts, content["seeds"]), found, about)
    for label in others:
        console.print(f"{first}: {texts[first]}; {label}: {texts[label]}")
        console.print(difference_table(first, label, found[label]))


if __name__ == "__main__":
    main()
