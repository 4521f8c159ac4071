"""Measure an editor of the toybox on held-out edits, by the judge.

    python -m toybox.evaluation.evaluate_editor toybox/weights/editor --sheet docs/editor-edits.png

The inputs are renders of scenes with held-out combinations, which neither the editor nor the models behind
its pairs were trained on. The judge saw none of the editor's pictures.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from editor.model.loading import load_editor, load_guidance
from editor.model.network import EditorNetwork, Guidance
from editor.sheet import Line, draw_sheet
from stages.base import Weights
from toybox.evaluation.held_out_edits import HeldOutEdit, figures, sample_edits
from toybox.evaluation.judge import Judge

BATCH = 35


def edited(
    network: EditorNetwork,
    edits: Sequence[HeldOutEdit],
    guidance: Guidance,
    seed: int = 0,
    inputs: Sequence[np.ndarray] | None = None,
    tasks: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """The editor's pictures, uint8 [h,w,3].

    Args:
        inputs: pictures to edit; None: the true pictures before each edit.
        tasks: the tasks that the editor is told; None: the true ones.
    """
    inputs = inputs or [edit.pictures[0] for edit in edits]
    tasks = tasks or [edit.task for edit in edits]
    found: list[np.ndarray] = []
    for start in range(0, len(edits), BATCH):
        part = edits[start : start + BATCH]
        latents = network.encode(np.stack(inputs[start : start + BATCH]))
        vectors = network.vectors([network.table.row(task) for task in tasks[start : start + BATCH]])
        texts = [edit.instruction for edit in part]
        seeds = range(seed + start, seed + start + len(part))
        found += list(network.edit(latents, texts, vectors, guidance, seeds))
    return found


@torch.no_grad()
def round_trips(network: EditorNetwork, edits: Sequence[HeldOutEdit]) -> list[np.ndarray]:
    """The true results, passed through the autoencoder: the best that an editor can draw."""
    found: list[np.ndarray] = []
    for start in range(0, len(edits), BATCH):
        part = np.stack([edit.pictures[1] for edit in edits[start : start + BATCH]])
        found += list(network.decode(network.encode(part)))
    return found


def table(results: dict[str, Any]) -> Table:
    """The figures of one editor for the terminal."""
    shown = Table("task", "edits", "done", "right", "error outside")
    for task, values in results.items():
        cells = [
            _interval(values[name], digits) for name, digits in (("done", 2), ("right", 2), ("outside", 4))
        ]
        shown.add_row(task, str(values["edits"]), *cells)
    return shown


def _interval(value: dict[str, float], digits: int) -> str:
    mean, low, high = (f"{value[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def sheet(
    edits: Sequence[HeldOutEdit], pictures: Sequence[np.ndarray], verdicts: Sequence[str], count: int
) -> bytes:
    """A contact sheet of some random edits: input, edited picture, truth, and the judge's verdict."""
    chosen = np.sort(np.random.default_rng(0).choice(len(edits), min(count, len(edits)), replace=False))
    lines = [
        Line(
            [
                (edits[k].pictures[0], edits[k].task),
                (pictures[k], verdicts[k]),
                (edits[k].pictures[1], "truth"),
            ],
            edits[k].instruction,
        )
        for k in chosen
    ]
    return draw_sheet(lines, 4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("editor", type=Path)
    parser.add_argument("--each", type=int, default=30, help="edits of each task")
    parser.add_argument(
        "--seed", type=int, default=31, help="of the scenes; report on one not used to choose"
    )
    parser.add_argument("--text", type=float, help="text guidance; default: the editor's")
    parser.add_argument("--image", type=float, help="image guidance; default: the editor's")
    parser.add_argument("--steps", type=int, help="denoising steps; default: the editor's")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet (PNG) of 48 edits")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    network = load_editor(Weights(model=str(options.editor.resolve())))
    own = load_guidance(options.editor)
    guidance = Guidance(
        own.text if options.text is None else options.text,
        own.image if options.image is None else options.image,
        own.steps if options.steps is None else options.steps,
    )
    edits, judge, console = sample_edits(options.each, options.seed), Judge.load(), Console()
    pictures = edited(network, edits, guidance)
    seen = judge.look(pictures)
    results = figures(edits, pictures, seen)
    console.print(f"{options.editor}, {guidance}")
    console.print(table(results))
    best = round_trips(network, edits)
    limit = figures(edits, best, judge.look(best))["all"]
    console.print(
        f"the truth through the autoencoder: right {limit['right']['mean']:.2f}, "
        f"error outside {limit['outside']['mean']:.4f}"
    )
    if options.json:
        content = {"guidance": vars(guidance), "editor": results, "autoencoder": limit}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if options.sheet:
        verdicts = [
            "right"
            if edit.is_right(found.content)
            else "done, not right"
            if edit.is_done(found.content)
            else "not done"
            for edit, found in zip(edits, seen, strict=True)
        ]
        options.sheet.write_bytes(sheet(edits, pictures, verdicts, 48))


if __name__ == "__main__":
    main()
