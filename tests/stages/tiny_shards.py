"""Rows as the shards stage is given them, and shards written as the engine writes them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.pictures.png import encode_png
from stages.score.metrics import MEASURED
from stages.shards.stage import Shards, ShardsConfig
from stages.tasks import Tasks
from tests.stages.tiny_tasks import tiny_task

TASKS = Tasks(
    {
        "remove": tiny_task("remove", index=1, inverse={"index": 2, "instruction": "add {original_object}"}),
        "add": tiny_task("add", index=2, direction="reverse"),
        "background": tiny_task("background", index=4, region="background"),
        "detect": tiny_task("detect", index=8, method="draw_box", candidates=()),
    }
)
SIDE = 32


def flat(level: int) -> bytes:
    return encode_png(np.full((SIDE, SIDE, 3), level, np.uint8))


def mask(level: int) -> bytes:
    return encode_png(np.full((SIDE, SIDE), level, np.uint8))


def given_row(task: str, number: int = 0, **columns) -> dict:
    """A row kept by the filter: the anchor's level is 10, the candidates' are 20, 21, ..."""
    sampled = TASKS[task].method == "prompt2prompt"
    candidate = {
        "candidate": 0,
        "thresholded": False,
        "mask": "soft" if sampled else "none",
        "cross_until": 0.5 if sampled else None,
        "self_until": 0.25 if sampled else None,
        "guidance_scale": 5.0 if sampled else None,
        "change_outside_raw": 0.1,
    }
    return {
        "id": f"{number:04x}{task}",
        "caption": "the caption",
        "task": task,
        "checked_task": task,
        "seed": 2**62 + number,
        "instruction": f"{task} it, number {number}",
        "edited_object": "new" if sampled else None,
        "original_object": "old",
        "output_caption": "the output caption",
        "precise_mask": mask(255),
        "smooth_mask": mask(200),
        "soft_mask": mask(128),
        "boxes": [[1.0, 2.0, 3.0, 4.0]],
        "models": '{"clip.model": "ViT-L-14@openai"}',
        "anchor": flat(10),
        "candidates": [{**candidate, "image": flat(20 + k)} for k in range(3)],
        "scores": [
            {**dict.fromkeys(MEASURED), "clip_direction": k / 4, "change_inside": 0.5} for k in range(3)
        ],
        "choice": 1,
        "inverse_reason": "",
        **columns,
    }


def published(rows: list[dict]) -> pa.Table:
    """What the engine writes to a shard."""
    table = Shards(ShardsConfig(), TASKS)(pa.Table.from_pylist(rows))
    assert set(table["status"].to_pylist()) <= {"kept"}
    return table.drop_columns(["status", "reason"]).replace_schema_metadata(Shards.schema_metadata)


def write_shards(folder: Path, rows: list[list[dict]], row_group: int = 4) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, part in enumerate(rows):
        paths.append(folder / f"train-{number:05d}-of-{len(rows):05d}.parquet")
        pq.write_table(published(part), paths[-1], row_group_size=row_group)
    return paths
