"""The figures of ``make toybox-eval`` as tables in ``toybox/README.md``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"

FIGURES: list[tuple[str, str, str, str]] = [
    ("autoencoder", "psnr_db", "autoencoder: PSNR, dB", ">= 26"),
    ("autoencoder", "hue_error_degrees", "autoencoder: mean hue error of an object, degrees", "<= 6"),
    ("drawing_1", "shapes", "one-object captions: right shape", ">= .90"),
    ("drawing_1", "colors", "one-object captions: right color", ">= .90"),
    ("drawing_1", "background", "one-object captions: right background", ">= .95"),
    ("drawing_2", "shapes_and_colors", "two-object captions: both right in shape and color", ">= .70"),
    ("grounding", "iou_over_half", "detector, drawn pictures: IoU over .5", ">= .90"),
    ("grounding", "absent_not_found", "detector, drawn pictures: absent phrases not found", ">= .90"),
    ("segmenter", "mean_iou", "SAM: mean IoU from a true box", ">= .88"),
    ("clip", "top1", "CLIP: right caption of 64", ">= .90"),
    ("clip", "color", "CLIP: right one of two colors", ">= .90"),
    ("clip", "kind", "CLIP: right one of two shapes", ">= .90"),
    ("clip", "background", "CLIP: right one of two backgrounds", ">= .90"),
    ("language_model", "valid", "language model: valid answers", ">= .99"),
    ("language_model", "correct", "language model: right answers", ">= .97"),
    ("task_predictor", "right", "task predictor: right task for the language model's instructions", ""),
    ("task_predictor", "moved_back", "task predictor: planted wrong tasks moved back", ""),
    ("task_predictor", "moved_wrongly", "task predictor: right tasks moved", ""),
]
"""Section, key, description, and the goal."""


def write_readme(path: Path, figures: Mapping[str, Any]) -> None:
    """Write the tables of ``figures`` between the markers of a README.

    Raises:
        ValueError: the file lacks a marker.
    """
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path} needs the lines {BEGIN} and {END}")
    tables = f"{BEGIN}\n{tables_of(figures)}\n{END}"
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    path.write_text(pattern.sub(lambda _: tables, text), encoding="utf-8")


def tables_of(figures: Mapping[str, Any]) -> str:
    """Markdown: one line per figure with its goal, then the edits by task."""
    lines = [
        f"Measured by `make toybox-eval` on {figures['date']}, on held-out scenes and captions.",
        "",
        "| figure | measured | goal |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {name} | {figures[section][key]:.3g} | {asked} |"
        for section, key, name, asked in FIGURES
        if key in figures.get(section, {})
    ]
    lines += [
        "",
        "Edits of `manifests/toybox.yaml` that the judge finds right: of all candidates drawn, of each of",
        "the task's candidates, and of the pairs that the filter kept.",
        "",
        "| task | planned | drawn | right | by candidate | kept | right of kept |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    edits = figures["edits"]
    for task, row in [*edits["tasks"].items(), ("all", {"planned": "", **edits["all"]})]:
        by_candidate = ", ".join(f"{share:.2f}" for share in row["right_by_candidate"])
        kept = "" if row["kept_right"] is None else f"{row['kept_right']:.2f}"
        lines.append(
            f"| {task} | {row['planned']} | {row['drawn']} | {row['right']:.2f} | "
            f"{by_candidate if task != 'all' else ''} | {row['kept']} | {kept} |"
        )
    return "\n".join(lines)
