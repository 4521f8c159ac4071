"""How far do untouched pixels drift if every turn of a session decodes and encodes the picture?

    python -m toybox.studies.turn_drift runs/sessions-*    # writes docs/turn-drift.md and docs/turn-drift.png

The chain imitates an editor without raw latents: each turn paints something into the picture and passes the
picture through the autoencoder once. The drift is measured against the first picture, where nothing was ever
painted, with and without per-pixel thresholding (:mod:`stages.pictures.pixel_threshold`). The same is
measured in the sessions of finished runs (:mod:`toybox.studies.session_drift`).
"""

import argparse
from datetime import date
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import track

from stages.pictures.pixel_threshold import ALPHA, keep_unchanged
from toybox.recipes.train_autoencoder import load_autoencoder, round_trip
from toybox.studies.session_drift import session_table
from toybox.world.render import render
from toybox.world.scene import COLORS, SIZE, sample_held_out_scene

DOCS = Path(__file__).parents[2] / "docs"
PICTURES, TURNS, SHOWN = 64, 6, 4
RADIUS = 6
"""Radius of a painted disc in pixels."""
REACH = 8
"""Pixels around a disc that do not count as untouched: the autoencoder can see the paint from there."""
KERNELS = (None, 1, 3, 5, 9)
"""Side of the neighbourhood in pixels; None: no thresholding."""

Edits = list[list[tuple[tuple[int, int], tuple[int, int, int]]]]


def painted(picture: np.ndarray, center: tuple[int, int], color: tuple[int, int, int]) -> np.ndarray:
    return cv2.circle(picture.copy(), center, RADIUS, color, -1, cv2.LINE_AA)


def sample_edits(rng: np.random.Generator) -> Edits:
    """Position and colour of the paint, by turn and picture."""
    colors = list(COLORS.values())

    def one() -> tuple[tuple[int, int], tuple[int, int, int]]:
        x, y = rng.integers(RADIUS, SIZE - RADIUS, 2)
        return (int(x), int(y)), colors[rng.integers(len(colors))]

    return [[one() for _ in range(PICTURES)] for _ in range(TURNS)]


def chain(pictures: np.ndarray, edits: Edits, kernel: int | None) -> np.ndarray:
    """The pictures after each turn, uint8 [turns,n,h,w,3]."""
    model, turns = load_autoencoder(), []
    for turn in edits:
        asked = np.stack([painted(p, *edit) for p, edit in zip(pictures, turn, strict=True)])
        decoded = round_trip(model, asked)
        if kernel is not None:
            decoded = np.stack(
                [
                    np.round(255 * keep_unchanged(before / 255, after / 255, ALPHA, kernel)).astype(np.uint8)
                    for before, after in zip(pictures, decoded, strict=True)
                ]
            )
        pictures = decoded
        turns.append(pictures)
    return np.stack(turns)


def untouched(edits: Edits) -> np.ndarray:
    """Pixels that no turn painted, bool [n,h,w]."""
    masks = np.ones((PICTURES, SIZE, SIZE), np.uint8)
    for turn in edits:
        for mask, (center, _) in zip(masks, turn, strict=True):
            cv2.circle(mask, center, RADIUS + REACH, 0, -1)
    return masks > 0


def drift(first: np.ndarray, turns: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean absolute difference from the first pictures over untouched pixels, in [0,1], by turn."""
    difference = np.abs(turns / 255 - first[None] / 255).mean(-1)
    return (difference * mask).sum((1, 2, 3)) / mask.sum()


def draw_sheet(first: np.ndarray, chains: dict[int | None, np.ndarray], path: Path) -> None:
    """Draw some pictures, turn by turn, without and with thresholding."""
    shown = (None, 5)
    figure, axes = plt.subplots(SHOWN * len(shown), TURNS + 1, figsize=(TURNS + 2, SHOWN * len(shown)))
    for index in range(SHOWN):
        for line, kernel in enumerate(shown):
            row = axes[index * len(shown) + line]
            for axis, picture in zip(row, [first[index], *chains[kernel][:, index]], strict=True):
                axis.imshow(picture)
                axis.set_xticks([])
                axis.set_yticks([])
            row[0].set_ylabel("thresholded" if kernel else "as decoded", fontsize=7)
    for turn, axis in enumerate(axes[0]):
        axis.set_title(f"turn {turn}" if turn else "first", fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of runs with several turns")
    options = parser.parse_args()
    rng = np.random.default_rng(21)
    first = np.stack([render(sample_held_out_scene(rng)).image for _ in range(PICTURES)])
    edits = sample_edits(rng)
    mask = untouched(edits)
    chains = {kernel: chain(first, edits, kernel) for kernel in track(KERNELS, "painting and decoding")}
    header = "".join(f" turn {turn} |" for turn in range(1, TURNS + 1))
    lines = [f"| thresholding |{header}", "|---|" + "---:|" * TURNS]
    for kernel, turns in chains.items():
        label = "none" if kernel is None else f"alpha {ALPHA}, kernel {kernel}"
        figures = "".join(f" {value:.4f} |" for value in drift(first, turns, mask))
        lines.append(f"| {label} |{figures}")
    table = "\n".join(lines)
    Console(soft_wrap=True).print(table, markup=False)
    names = "".join(f" runs/{run.name}" for run in options.runs)
    sessions = "\n".join(session_table(options.runs)) if options.runs else ""
    (DOCS / "turn-drift.md").write_text(
        "# Drift of untouched pixels, turn by turn\n\n"
        f"`python -m toybox.studies.turn_drift{names}`,\n"
        f"{date.today()}: {PICTURES} pictures, {TURNS} turns. Each\n"
        "turn paints something and passes the picture through the toybox's autoencoder once. Mean\n"
        "difference from the first picture, in [0,1], where nothing was ever painted "
        f"({mask.mean():.0%} of the pixels).\n\n" + table + "\n\n"
        "![pictures by turn](turn-drift.png)\n" + sessions,
        encoding="utf-8",
    )
    draw_sheet(first, chains, DOCS / "turn-drift.png")


if __name__ == "__main__":
    main()
