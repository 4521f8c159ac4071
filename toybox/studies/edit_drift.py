"""Six real edits in a row: how far do untouched pixels drift, and which edits does thresholding eat?

    python -m toybox.studies.edit_drift toybox/weights/editor

Drift: sessions of six edits that change one object each (colour, texture or kind). An untouched pixel is one
that no edit of its session should change, away from all changes. Drift is the mean difference from the first
picture there. Eaten: single edits that the judge finds done as the editor drew them, and not done once pixels
that hardly changed were taken from the input picture (:mod:`stages.pictures.pixel_threshold`).
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from editor.evaluation.intervals import Interval, mean_intervals
from editor.model.loading import load_editor, load_guidance
from editor.model.network import EditorNetwork, Guidance
from pipeline.shown import plain_table
from stages.base import Weights
from stages.pictures.pixel_threshold import keep_unchanged
from stages.tasks import load_tasks
from toybox.evaluation.evaluate_editor import edited
from toybox.evaluation.held_out_edits import PROMPTS, HeldOutEdit, sample_edits
from toybox.evaluation.judge import Judge
from toybox.world.answers import changes, sample_description
from toybox.world.scene import sample_held_out_scene
from toybox.world.wordings import wordings

TURNS = ("color", "texture", "local", "color", "texture", "local")
SETTINGS: tuple[tuple[float, int] | None, ...] = (None, (0.03, 1), (0.03, 5), (0.1, 5))
"""Alpha and kernel; None: no thresholding. The second-to-last is the default of ``editpairs edit``."""

Session = Sequence[HeldOutEdit]


@dataclass(frozen=True)
class Drift:
    """By turn: the drift of untouched pixels in [0,1], and the share of all pixels that were carried over."""

    drift: list[Interval]
    kept: list[float]


def sample_sessions(count: int, seed: int = 37) -> list[Session]:
    """Sessions of six edits of a scene with two objects. The result is always the same."""
    known = load_tasks(PROMPTS)
    sessions: list[Session] = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        scene, description = sample_held_out_scene(rng, things=2), sample_description(rng)
        session = []
        for task in TURNS:
            options = changes(scene, description, task)
            change, verbs = options[rng.integers(len(options))], known[task].verbs
            texts = wordings(task, verbs[rng.integers(len(verbs))], change.words)
            text = texts[rng.integers(len(texts))]
            session.append(HeldOutEdit(task, text, scene, change.after, number))
            scene = change.after
        sessions.append(session)
    return sessions


def untouched(session: Session) -> np.ndarray:
    """The pixels away from all changes of a session, bool [h,w]."""
    return np.logical_and.reduce([edit.outside for edit in session])


def thresholded(before: np.ndarray, after: np.ndarray, setting: tuple[float, int] | None) -> np.ndarray:
    """An edited picture, uint8 [h,w,3], after thresholding against the picture before."""
    if setting is None:
        return after
    return np.round(255 * keep_unchanged(before / 255, after / 255, *setting)).astype(np.uint8)


def drift(
    network: EditorNetwork,
    sessions: Sequence[Session],
    guidance: Guidance,
    setting: tuple[float, int] | None,
) -> Drift:
    """Edit all sessions turn by turn."""
    first = [session[0].pictures[0] for session in sessions]
    masks = [untouched(session) for session in sessions]
    pictures, found, kept = first, [], []
    for turn in range(len(TURNS)):
        edits = [session[turn] for session in sessions]
        drawn = edited(network, edits, guidance, seed=1000 * turn, inputs=pictures)
        after = [thresholded(*pair, setting) for pair in zip(pictures, drawn, strict=True)]
        kept.append(float(np.mean([(a == b).all(-1).mean() for a, b in zip(after, pictures, strict=True)])))
        errors = [
            np.abs(picture / 255 - start / 255).mean(-1)[mask].mean()
            for picture, start, mask in zip(after, first, masks, strict=True)
        ]
        found += mean_intervals(np.array(errors)[:, None], range(len(sessions)))
        pictures = after
    return Drift(found, kept)


def eaten(edits: Sequence[HeldOutEdit], drawn: Sequence[np.ndarray]) -> dict[str, dict[str, list[int]]]:
    """By setting and task: edits done as drawn, those of them not done once thresholded, and the reverse."""
    judge, found = Judge.load(), {}
    plain = [edit.is_done(seen.content) for edit, seen in zip(edits, judge.look(drawn), strict=True)]
    for setting in SETTINGS[1:]:
        merged = [
            thresholded(edit.pictures[0], picture, setting)
            for edit, picture in zip(edits, drawn, strict=True)
        ]
        done = [edit.is_done(seen.content) for edit, seen in zip(edits, judge.look(merged), strict=True)]
        by_task: dict[str, list[int]] = {}
        for edit, before, after in zip(edits, plain, done, strict=True):
            for name in ("all", edit.task):
                counts = by_task.setdefault(name, [0, 0, 0])
                counts[0] += before
                counts[1] += before and not after
                counts[2] += after and not before
        found[label(setting)] = by_task
    return found


def label(setting: tuple[float, int] | None) -> str:
    """A setting in words."""
    return "none" if setting is None else f"alpha {setting[0]}, kernel {setting[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("editor", type=Path)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--each", type=int, default=30, help="single edits of each task")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    network = load_editor(Weights(model=str(options.editor.resolve())))
    guidance = load_guidance(options.editor)
    sessions, console, content = sample_sessions(options.sessions), Console(width=150), dict[str, Any]()
    masks = np.stack([untouched(session) for session in sessions])
    console.print(f"{len(sessions)} sessions; {masks.mean():.0%} of the pixels untouched")
    shown = plain_table("thresholding", *(f"turn {turn}" for turn in range(1, len(TURNS) + 1)), "kept")
    for setting in track(SETTINGS, "editing"):
        found = drift(network, sessions, guidance, setting)
        kept = f"{np.mean(found.kept):.2f}"
        shown.add_row(label(setting), *(interval.text(4) for interval in found.drift), kept)
        content[label(setting)] = {"drift": [vars(each) for each in found.drift], "kept": found.kept}
    console.print(shown)
    edits = sample_edits(options.each)
    lost = eaten(edits, edited(network, edits, guidance))
    shown = plain_table("thresholding", "task", "done", "eaten", "mended")
    for name, by_task in lost.items():
        for task, counts in by_task.items():
            shown.add_row(name, task, *map(str, counts))
    console.print(shown)
    if options.json:
        written = json.dumps({"sessions": len(sessions), "drift": content, "eaten": lost}, indent=2)
        options.json.write_text(written + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
