"""A tiny editor, its manifest and its pairs, all random."""

from pathlib import Path

import numpy as np

from editor.config import EditorManifest, parse_editor_manifest
from stages.pictures.png import encode_png
from tests.stages.tiny_pipelines import save_stable_diffusion
from tests.stages.tiny_shards import TASKS, given_row, write_shards

SIDE = 16
"""Side of the pictures of tests/stages/tiny_pipelines.py."""


def picture(seed: int, side: int = SIDE) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def pair_row(task: str, number: int, **columns) -> dict:
    row = given_row(task, number, caption=f"caption {number}", anchor=picture(number), **columns)
    for k, candidate in enumerate(row["candidates"]):
        candidate["image"] = picture(1000 + 10 * number + k)
    return row


def write_pairs(folder: Path, count: int = 12) -> Path:
    """Shards of ``count`` pairs, alternating between the tasks of tests/stages/tiny_shards.py."""
    names = sorted(TASKS)
    write_shards(folder, [[pair_row(names[k % len(names)], k) for k in range(count)]])
    return folder


def manifest_for(folder: Path, **sections) -> EditorManifest:
    """A manifest of a training in ``folder``, with a model and pairs that are made there."""
    if not (folder / "model").exists():
        save_stable_diffusion(folder / "model")
        write_pairs(folder / "pairs")
    content = {
        "name": "tiny",
        "runs": str(folder),
        "base": {"model": str(folder / "model")},
        "data": {"pairs": [str(folder / "pairs")], "test_share": 0.3, **sections.pop("data", {})},
        "training": {
            "steps": 6,
            "batch": 4,
            "learning_rate": 0.001,
            "warmup": 2,
            "zero_terminal_snr": False,
            **sections.pop("training", {}),
        },
        "sampling": {"steps": 2},
        "watch": {"log_every": 2, "checkpoint_every": 3, "samples_every": 100, "samples": 2},
        **sections,
    }
    return parse_editor_manifest(content, "the manifest")
