"""Task inversion for a task that an editor was not trained on, at 1, 10 and 100 examples.

    python -m toybox.studies.inversion EDITOR --pairs PAIRS --task color --known toybox/weights/editor

EDITOR was trained without the task, the editor ``--known`` with it. The examples are pairs of a run. The
judge looks at held-out edits of the task. "0 examples" is the vector that inversion begins at; "doing
nothing" leaves the picture as it was.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor

from editor.data.edit_sets import EditSet
from editor.data.examples import pair_files
from editor.inversion.learn import Progress, Settings, learn_vector
from editor.inversion.pairs import ExamplePair
from editor.model.loading import load_editor, load_guidance
from editor.model.network import EditorNetwork, Guidance
from stages.base import Weights
from stages.tasks import load_tasks
from toybox.evaluation.held_out_edits import PROMPTS, TASKS, HeldOutEdit, figures, sample_edits
from toybox.evaluation.judge import Judge

EXAMPLES = (1, 10, 100)


def examples_of(pairs: str, task: str, count: int) -> list[ExamplePair]:
    """The first pairs of a task in a run; fewer if it has fewer."""
    index = load_tasks(PROMPTS)[task].index
    found = (
        ExamplePair(edit.id, edit.before, edit.after, edit.instruction)
        for file in pair_files(pairs)
        for edit in EditSet(str(file))
        if edit.task == index and edit.after is not None
    )
    return list(islice(found, count))


def judged(
    network: EditorNetwork,
    vector: Tensor,
    edits: Sequence[HeldOutEdit],
    guidance: Guidance,
    judge: Judge,
) -> dict[str, Any]:
    """The figures of edits that are all made with one task vector."""
    latents = network.encode(np.stack([edit.pictures[0] for edit in edits]))
    texts, vectors = [edit.instruction for edit in edits], vector.expand(len(edits), -1)
    pictures = list(network.edit(latents, texts, vectors, guidance, range(len(edits))))
    found: dict[str, Any] = figures(edits, pictures, judge.look(pictures))["all"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("editor", type=Path)
    parser.add_argument("--pairs", required=True, help="a run, for its pairs of the task")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--known", type=Path, required=True, help="an editor that was trained with the task")
    parser.add_argument("--edits", type=int, default=60, help="held-out edits")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    network = load_editor(Weights(model=str(options.editor.resolve())))
    guidance, console, judge = load_guidance(options.editor), Console(width=150), Judge.load()
    if options.task in network.table.names:
        parser.error(f"{options.editor} was trained on {options.task}")
    edits = sample_edits(options.edits, tasks=(options.task,))
    content: dict[str, Any] = {}

    def show(name: str, found: dict[str, Any]) -> None:
        content[name] = found
        told = ", ".join(
            f"{key} {found[key]['mean']:.3f} ({found[key]['low']:.3f}-{found[key]['high']:.3f})"
            for key in ("done", "right", "outside")
        )
        console.print(f"{name}: {told}", highlight=False)

    same = [edit.pictures[0] for edit in edits]
    show("doing nothing", figures(edits, same, judge.look(same))["all"])
    pairs = examples_of(options.pairs, options.task, max(EXAMPLES))
    start = learn_vector(network, pairs, Settings(steps=0))
    show("0 examples", judged(network, start, edits, guidance, judge))
    for count in EXAMPLES:
        lines: list[Progress] = []
        vector = learn_vector(network, pairs[:count], Settings(steps=options.steps), lines.append)
        show(f"{min(count, len(pairs))} examples", judged(network, vector, edits, guidance, judge))
        told = "; ".join(f"{line.step}: {line.loss:.4f}, norm {line.norm:.2f}" for line in lines)
        console.print(f"  loss on its examples {told}", highlight=False)
    known = load_editor(Weights(model=str(options.known.resolve())))
    own = known.table.vectors.weight[known.table.row(options.task)]
    show("trained with it", judged(known, own, edits, load_guidance(options.known), judge))
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
