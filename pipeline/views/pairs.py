"""Published pairs, read back for display."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.errors import UserError
from pipeline.shown import DataTable, brief
from pipeline.store.location import Location, list_folder
from pipeline.store.reading import open_parquet
from stages.pictures.png import decode_grey, decode_rgb
from stages.score.metrics import MEASURED, METRICS
from stages.shards.columns import SCHEMA

_COLUMNS = ["id", "task", "T", "I", "Tar", "mask", "input_caption", "output_caption", *MEASURED]
_READ = pa.schema([("id", pa.string()), *(SCHEMA.field(name) for name in _COLUMNS[1:])])
SHOWN_SCORES = {"clip_direction": "direction", "change_inside": "inside", "change_outside": "outside"}
"""The scores that a person looks at first, with their short names."""


@dataclass(frozen=True)
class Pair:
    """One published row. The PNG bytes of a missing picture are empty."""

    id: str
    task: str
    instruction: str
    """The instruction from the input picture to the target."""
    input_png: bytes
    target_png: bytes
    mask_png: bytes
    input_caption: str
    output_caption: str
    scores: Mapping[str, float]
    """Scores by metric; only metrics that apply to the task."""

    @property
    def input(self) -> Image.Image:
        """The picture before the edit, RGB.

        Raises:
            UserError: the picture is missing or damaged; also for the other two pictures.
        """
        return self._picture(decode_rgb, self.input_png)

    @property
    def target(self) -> Image.Image:
        """The picture after the edit, RGB."""
        return self._picture(decode_rgb, self.target_png)

    @property
    def mask(self) -> Image.Image:
        """How freely each pixel could change, 8-bit grey: 255 fully, 0 not at all."""
        return self._picture(decode_grey, self.mask_png)

    def _picture(self, decode: Callable[[bytes], np.ndarray], data: bytes) -> Image.Image:
        try:
            return Image.fromarray(decode(data))
        except ValueError as error:
            raise UserError(f"row {self.id}: {error}; editpairs validate looks at all rows") from error


def read_pairs(path: Location, rows: int, seed: int, task: str | None = None) -> list[Pair]:
    """Draw random pairs. The same seed gives the same pairs. They are in the order of the shards.

    Args:
        path: a shard, a folder of shards, or a run folder.
        rows: the largest number of pairs.
        task: only pairs of this task.

    Raises:
        UserError: a file cannot be read, or is not a shard.
    """
    groups: list[tuple[Location, int]] = []
    sizes: list[int] = []
    for shard in _shards(path):
        with open_parquet(shard, _READ) as file:
            for group in range(file.num_row_groups):
                groups.append((shard, group))
                sizes.append(len(_matching(file, group, task)))
    ends = np.cumsum(sizes, dtype=np.int64)
    total = int(ends[-1]) if groups else 0
    if not total:
        return []
    drawn = np.sort(np.random.default_rng(seed).choice(total, min(rows, total), replace=False))
    places = np.searchsorted(ends, drawn, side="right")
    pairs: list[Pair] = []
    for number in np.unique(places):
        shard, group = groups[number]
        wanted = drawn[places == number] - (ends[number] - sizes[number])
        with open_parquet(shard, _READ) as file:
            rows_of_task = _matching(file, group, task)[wanted]
            table = file.read_row_group(group, columns=_columns(file)).take(pa.array(rows_of_task))
            pairs += [_pair(record) for record in table.to_pylist()]
    return pairs


def each_pair(path: Location, task: str | None = None) -> Iterator[Pair]:
    """Yield the pairs of a run or of its shards, in order. Row groups are read one at a time.

    Args:
        path: as for ``read_pairs``.
        task: only pairs of this task.

    Raises:
        UserError: a file cannot be read, or is not a shard.
    """
    for shard in _shards(path):
        with open_parquet(shard, _READ) as file:
            for group in range(file.num_row_groups):
                rows = _matching(file, group, task)
                if len(rows):
                    table = file.read_row_group(group, columns=_columns(file)).take(pa.array(rows))
                    yield from map(_pair, table.to_pylist())


def _columns(file: pq.ParquetFile) -> list[str]:
    """The columns to read. The metrics of optional stages are published by runs with these stages alone."""
    optional = [name for name in METRICS if name not in MEASURED]
    return _COLUMNS + [name for name in optional if name in file.schema_arrow.names]


def _matching(file: pq.ParquetFile, group: int, task: str | None) -> np.ndarray:
    """The rows of a row group that belong to ``task``; all rows if ``task`` is None."""
    if task is None:
        return np.arange(file.metadata.row_group(group).num_rows)
    names = file.read_row_group(group, columns=["task"])["task"].to_pylist()
    return np.flatnonzero([name == task for name in names])


def pairs_table(pairs: Sequence[Pair]) -> DataTable:
    """A table of pairs for the terminal."""
    table = DataTable("task", "instruction", *SHOWN_SCORES.values(), "id")
    for pair in pairs:
        scores = [f"{pair.scores[name]:.3f}" if name in pair.scores else "" for name in SHOWN_SCORES]
        table.add_row(brief(pair.task), brief(pair.instruction), *scores, brief(pair.id))
    return table


def _shards(path: Location) -> list[Location]:
    """A shard, or the shards of a folder or of a run. Patterns would find nothing in an unreadable folder."""
    if path.is_file():
        return [path]
    if own := shards_in(path):
        return own
    turns = sorted(name for name, is_folder in list_folder(path).items() if is_folder)
    return [shard for name in turns if name.startswith("shards") for shard in shards_in(path / name)]


def shards_in(folder: Location) -> list[Location]:
    """The shards in a folder, in order.

    Raises:
        OSError: the folder cannot be listed.
    """
    names = sorted(list_folder(folder))
    return [folder / n for n in names if n.startswith("train-") and n.endswith(".parquet")]


def _pair(record: Mapping[str, Any]) -> Pair:
    pictures = {name: (record[name] or {}).get("bytes") or b"" for name in ("I", "Tar", "mask")}
    return Pair(
        id=record["id"] or "",
        task=record["task"] or "",
        instruction=record["T"] or "",
        input_png=pictures["I"],
        target_png=pictures["Tar"],
        mask_png=pictures["mask"],
        input_caption=record["input_caption"] or "",
        output_caption=record["output_caption"] or "",
        scores={metric: record[metric] for metric in METRICS if record.get(metric) is not None},
    )
