"""Published pairs, read back to be looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from pipeline.storage import Location, arrow_source
from stages.score.metrics import METRICS

_COLUMNS = ["id", "task", "T", "I", "Tar", "mask", "input_caption", "output_caption", *METRICS]
SHOWN_SCORES = {"clip_direction": "direction", "change_inside": "inside", "change_outside": "outside"}
"""The scores that a person looks at first, and their short names."""


@dataclass(frozen=True)
class Pair:
    """One published row. Pictures are PNG bytes; a score that does not apply is not in ``scores``."""

    id: str
    task: str
    instruction: str
    input: bytes
    target: bytes
    mask: bytes
    input_caption: str
    output_caption: str
    scores: Mapping[str, float]


def read_pairs(path: Location, rows: int, seed: int, task: str | None = None) -> list[Pair]:
    """Draw pairs at random; the same seed draws the same ones, in the order of the shards.

    Args:
        path: a shard, a folder of shards, or a run's folder.
        rows: how many, at most.
        task: only pairs of this task.
    """
    files = [pq.ParquetFile(arrow_source(shard)) for shard in _shards(path)]
    places = [
        (number, group, row)
        for number, file in enumerate(files)
        for group in range(file.num_row_groups)
        for row, name in enumerate(file.read_row_group(group, columns=["task"])["task"].to_pylist())
        if task in (None, name)
    ]
    generator = np.random.default_rng(seed)
    drawn = sorted(generator.choice(len(places), min(rows, len(places)), replace=False)) if places else []
    pairs = []
    groups: dict[tuple[int, int], list[int]] = {}
    for index in drawn:
        number, group, row = places[index]
        groups.setdefault((number, group), []).append(row)
    for (number, group), wanted in groups.items():
        table = files[number].read_row_group(group, columns=_COLUMNS).take(wanted)
        pairs += [_pair(record) for record in table.to_pylist()]
    return pairs


def table_of(pairs: Sequence[Pair]) -> Table:
    """Pairs as a table for the terminal."""
    table = Table("task", "instruction", *SHOWN_SCORES.values(), "id")
    for pair in pairs:
        scores = [f"{pair.scores[name]:.3f}" if name in pair.scores else "" for name in SHOWN_SCORES]
        cells = [pair.task, pair.instruction, *scores, pair.id]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _shards(path: Location) -> list[Location]:
    if path.is_file():
        return [path]
    return sorted(path.glob("train-*.parquet")) or sorted(path.glob("shards*/train-*.parquet"))


def _pair(record: Mapping[str, Any]) -> Pair:
    return Pair(
        id=record["id"],
        task=record["task"],
        instruction=record["T"],
        input=record["I"]["bytes"],
        target=record["Tar"]["bytes"],
        mask=record["mask"]["bytes"],
        input_caption=record["input_caption"],
        output_caption=record["output_caption"],
        scores={metric: record[metric] for metric in METRICS if record[metric] is not None},
    )
