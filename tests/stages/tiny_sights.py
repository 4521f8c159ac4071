"""Rows as the judge stage is given them."""

from typing import Any

import numpy as np
import pyarrow as pa

from stages.pictures.png import encode_png
from stages.tasks import Tasks
from tests.stages.tiny_tasks import tiny_task

TASKS = Tasks(
    {
        "local": tiny_task("local", index=0),
        "add": tiny_task("add", index=2, direction="reverse"),
        "global": tiny_task("global", index=5, region="all", ground="none"),
    }
)
SIDE = 32


def picture(level: int) -> bytes:
    return encode_png(np.full((SIDE, SIDE, 3), level, np.uint8))


def region() -> bytes:
    """The precise mask: the upper left quarter."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[: SIDE // 2, : SIDE // 2] = 255
    return encode_png(mask)


def row(
    instruction: str = "change the car into a boat", task: str = "local", **columns: Any
) -> dict[str, Any]:
    """A row with two candidates: the anchor's level is 10, the candidates' are 20 and 21."""
    return {
        "id": f"{instruction} {task}",
        "task": task,
        "seed": 5,
        "caption": "a car on a beach",
        "instruction": instruction,
        "output_caption": "a boat on a beach",
        "precise_mask": region(),
        "boxes": [[0.0, 0.0, SIDE / 2, SIDE / 2]],
        "anchor": picture(10),
        "candidates": [{"image": picture(20 + k)} for k in range(2)],
        **columns,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows))
