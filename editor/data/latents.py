"""Latents of all pictures, encoded once before training and memory-mapped during it.

latents.f16     float16 [pictures,c,h,w], the autoencoder's mean, without its scale
examples.parquet    one line per example: its pictures, instruction, task and side
cache.json      shape, counts, and what the cache was made from; written last
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from editor.config import DataConfig
from editor.data.examples import PairRow, Reading
from editor.model.network import EditorNetwork
from pipeline.errors import UserError
from pipeline.exports import Side
from pipeline.store.location import Location
from stages.tasks import Tasks

_LATENTS, _EXAMPLES, _ABOUT = "latents.f16", "examples.parquet", "cache.json"
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("before", pa.int64()),
        ("after", pa.int64()),
        ("instruction", pa.string()),
        ("row", pa.int32()),
        ("side", pa.string()),
        ("before_caption", pa.string()),
        ("after_caption", pa.string()),
    ]
)
_TAIL = 1 << 16
"""Bytes at the end of a parquet file that identify its content: its footer, with sizes and checksums."""


@dataclass(frozen=True)
class Batch:
    """Examples: latents float32 [n,c,h,w] before and after, instructions, and rows of the task table."""

    before: torch.Tensor
    after: torch.Tensor
    instructions: list[str]
    rows: list[int]


class LatentCache:
    """The examples of one side of a split."""

    def __init__(self, folder: Path, side: Side) -> None:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        self.pictures: int = about["pictures"]
        self.skipped: dict[str, int] = about["skipped"]
        shape = tuple(about["shape"])
        self._latents = np.memmap(folder / _LATENTS, np.float16, "r", shape=(about["pictures"], *shape))
        table = pq.read_table(folder / _EXAMPLES)
        self.table = table.filter(pa.array([each == side for each in table["side"].to_pylist()], pa.bool_()))
        self._pairs = np.stack([self.table[name].to_numpy() for name in ("before", "after")], 1)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def batch(self, numbers: np.ndarray) -> Batch:
        """The examples with these numbers."""
        pairs = self._pairs[numbers]
        before, after = (
            torch.from_numpy(self._latents[pairs[:, side]].astype(np.float32)) for side in (0, 1)
        )
        chosen = self.table.take(pa.array(numbers))
        return Batch(before, after, chosen["instruction"].to_pylist(), chosen["row"].to_pylist())

    def instructions(self) -> list[str]:
        """Every instruction, in order."""
        return list(self.table["instruction"].to_pylist())

    def captions(self) -> frozenset[str]:
        """The captions of all pictures that an example begins with."""
        return frozenset(caption for caption in self.table["before_caption"].to_pylist() if caption)


def content_of(files: Sequence[Location], settings: str = "") -> Any:
    """A hash object of settings and of the content of parquet files, told by their sizes and ends."""
    content = hashlib.blake2b(settings.encode(), digest_size=16)
    for file in files:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL))
            content.update(f"{size}\x1f".encode() + stream.read())
    return content


def fingerprint(reading: Reading, config: DataConfig, vae: torch.nn.Module) -> str:
    """A hash of what the cached latents depend on: the files, the settings and the autoencoder's weights."""
    settings = config.model_dump(exclude={"batch", "pairs"}, mode="json")
    content = content_of(reading.files, json.dumps(settings, sort_keys=True))
    for name, tensor in sorted(vae.state_dict().items()):
        content.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def ensure_cache(
    folder: Path,
    config: DataConfig,
    network: EditorNetwork,
    tasks: Tasks,
    told: Callable[[int], None] = lambda _: None,
) -> str:
    """Encode the pairs, unless the folder holds their latents already.

    Args:
        told: called after each batch with the number of rows encoded so far.

    Returns:
        The fingerprint of the pairs.

    Raises:
        UserError: no pair can be used, or a pair's task is not in the table.
    """
    indices = None if config.tasks is None else frozenset(tasks[name].index for name in config.tasks)
    reading = Reading(config.pairs, config.test_share, config.inverse, indices)
    wanted = fingerprint(reading, config, network.vae)
    if (folder / _ABOUT).exists():
        if json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["fingerprint"] == wanted:
            return wanted
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(folder, network)
    with pq.ParquetWriter(folder / _EXAMPLES, _SCHEMA, compression="zstd") as table:
        waiting: list[PairRow] = []
        for row in reading.rows(config.batch):
            if row.before.shape[:2] != (network.side, network.side):
                reading.skipped[f"not {network.side} x {network.side} pixels, as the model needs"] += 1
                continue
            waiting.append(row)
            if len(waiting) == config.batch:
                writer.write(table, waiting)
                waiting = []
                told(writer.pairs)
        writer.write(table, waiting)
        told(writer.pairs)
    writer.close()
    if not writer.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in reading.skipped.items())
        raise UserError(f"data.pairs: no pair can be used ({reasons or 'none of data.tasks'})")
    about: dict[str, Any] = {
        "fingerprint": wanted,
        "pictures": 2 * writer.pairs,
        "shape": writer.shape,
        "skipped": dict(reading.skipped),
        "sides": dict(writer.sides),
    }
    (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
    return wanted


class _Writer:
    def __init__(self, folder: Path, network: EditorNetwork) -> None:
        self._network = network
        self._file = (folder / _LATENTS).open("wb")
        self.pairs = 0
        self.shape: tuple[int, ...] = ()
        self.sides: Counter[str] = Counter()

    def close(self) -> None:
        self._file.close()

    def write(self, table: pq.ParquetWriter, rows: list[PairRow]) -> None:
        """Encode the pictures of some pairs and write their examples."""
        if not rows:
            return
        pictures = np.stack([picture for row in rows for picture in (row.before, row.after)])
        latents = self._network.encode(pictures).cpu().numpy().astype(np.float16)
        self.shape = latents.shape[1:]
        self._file.write(latents.tobytes())
        records = []
        for number, row in enumerate(rows, start=self.pairs):
            for example in row.examples:
                first, last = (2 * number, 2 * number + 1)[:: -1 if example.backwards else 1]
                captions = (row.input_caption, row.output_caption)[:: -1 if example.backwards else 1]
                records.append(
                    {
                        "id": row.id,
                        "before": first,
                        "after": last,
                        "instruction": example.instruction,
                        "row": self._row(row.id, example.index),
                        "side": row.side,
                        "before_caption": captions[0],
                        "after_caption": captions[1],
                    }
                )
                self.sides[row.side] += 1
        table.write_table(pa.Table.from_pylist(records, _SCHEMA))
        self.pairs += len(rows)

    def _row(self, row_id: str, index: int) -> int:
        try:
            return self._network.table.rows([index])[0]
        except ValueError as error:
            raise UserError(f"row {row_id}: {error}; name the task files in data.prompts") from error
