"""The plan: which caption gets which task, in which part. Written once a run, one row group a part.

Everything downstream reads it, so it never changes: a manifest that would plan other rows is
refused, with the difference shown.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.captions import content_hash, read_captions
from pipeline.errors import UserError
from pipeline.manifest import Manifest
from pipeline.parts import PartWriter, read_metadata
from stages.seeds import derive_seed

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("repeat", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
    ]
)
"""``row`` is the caption's place in its file, ``seed`` what all randomness of the row derives from."""


@dataclass(frozen=True)
class Plan:
    """What ``plan.parquet`` says about itself."""

    digest: str
    settings: Mapping[str, Any]
    captions: int
    duplicates: int
    part_rows: tuple[int, ...]
    """Rows of each part."""
    tasks: Counter[str]
    """Planned rows by task."""

    @property
    def parts(self) -> int:
        return len(self.part_rows)

    @property
    def rows(self) -> int:
        return sum(self.part_rows)


def read_plan(path: Path) -> Plan | None:
    """The plan of a run; None if there is none."""
    content = read_metadata(path)
    if content is None:
        return None
    groups = pq.read_metadata(path)
    return Plan(
        digest=content["digest"],
        settings=content["settings"],
        captions=content["captions"],
        duplicates=content["duplicates"],
        part_rows=tuple(groups.row_group(i).num_rows for i in range(groups.num_row_groups)),
        tasks=Counter(content["tasks"]),
    )


def ensure_plan(path: Path, manifest: Manifest) -> Plan:
    """Write the plan if there is none; otherwise check that the manifest still means the same rows.

    Raises:
        UserError: the run was planned from other captions, seed, mixture or part size.
    """
    settings = plan_settings(manifest)
    plan = read_plan(path)
    if plan is None:
        _write_plan(path, manifest, settings)
        plan = read_plan(path)
        assert plan is not None
    elif plan.settings != settings:
        keys = sorted({*plan.settings, *settings})
        changes = [
            f"  {key}: {plan.settings.get(key)!r} -> {settings.get(key)!r}"
            for key in keys
            if plan.settings.get(key) != settings.get(key)
        ]
        raise UserError(
            f"{path.parent} was planned differently:\n" + "\n".join(changes) + "\n"
            "Rows of two plans cannot share a run: use another run name (--set name=...), or undo the change"
        )
    return plan


def plan_settings(manifest: Manifest) -> dict[str, Any]:
    """What decides the rows, by manifest key."""
    return {
        "captions.file (content)": content_hash(manifest.captions.file),
        "captions.column": manifest.captions.column,
        "captions.duplicates": manifest.captions.duplicates,
        "seed": manifest.seed,
        "rows": manifest.rows,
        "repeats": manifest.repeats,
        "rows_per_part": manifest.rows_per_part,
        "tasks.mixture": dict(manifest.tasks.mixture),
    }


def quotas(rows: int, mixture: Mapping[str, float]) -> dict[str, int]:
    """Rows a task: the mixture's exact share, rounded by largest remainder (ties in its order)."""
    weights = {task: Fraction(weight) for task, weight in mixture.items()}
    total = sum(weights.values())
    shares = {task: rows * weight / total for task, weight in weights.items()}
    result = {task: int(share) for task, share in shares.items()}
    by_remainder = sorted(shares, key=lambda task: result[task] - shares[task])
    for task in by_remainder[: rows - sum(result.values())]:
        result[task] += 1
    return result


def read_part(path: Path, part: int, columns: list[str]) -> pa.Table:
    """Columns of one part's rows, in order."""
    return _open(path, path.stat().st_mtime_ns).read_row_group(part, columns=columns)


@lru_cache(maxsize=1)
def _open(path: Path, modified_ns: int) -> pq.ParquetFile:
    """A worker reads many parts of one plan, whose footer lists every part: parse it once."""
    return pq.ParquetFile(path)


def _write_plan(path: Path, manifest: Manifest, settings: Mapping[str, Any]) -> None:
    captions = read_captions(manifest.captions.file, manifest.captions.column)
    rows = _kept_rows(captions, manifest.captions.duplicates)
    duplicates = len(captions) - len(rows)
    planned = len(rows) * manifest.repeats
    if manifest.rows is not None:
        planned = min(planned, manifest.rows)
    quota = quotas(planned, manifest.tasks.mixture)
    names = list(quota)
    tasks = np.repeat(np.arange(len(names), dtype=np.int32), list(quota.values()))
    np.random.default_rng(derive_seed(manifest.seed, "tasks")).shuffle(tasks)
    part_rows = manifest.rows_per_part // manifest.repeats * manifest.repeats
    with PartWriter(path, SCHEMA) as writer:
        for start in range(0, planned, part_rows):
            index = np.arange(start, min(start + part_rows, planned))
            chosen = rows[index // manifest.repeats]
            writer.write(
                _part_table(
                    chosen,
                    captions.take(pa.array(chosen)).to_pylist(),
                    [names[code] for code in tasks[index]],
                    index % manifest.repeats,
                    manifest.seed,
                )
            )
        writer.commit(
            {"settings": settings, "captions": len(captions), "duplicates": duplicates, "tasks": quota}
        )


def _part_table(
    rows: np.ndarray, captions: list[str], tasks: list[str], repeats: np.ndarray, seed: int
) -> pa.Table:
    ids = [
        hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).hexdigest()
        for key in zip(rows, captions, tasks, repeats, strict=True)
    ]
    seeds = [derive_seed(seed, row_id) for row_id in ids]
    return pa.Table.from_arrays(
        [
            pa.array(values, field.type)
            for values, field in zip((ids, rows, captions, tasks, repeats, seeds), SCHEMA, strict=True)
        ],
        schema=SCHEMA,
    )


def _kept_rows(captions: pa.ChunkedArray, duplicates: str) -> np.ndarray:
    """Row numbers to plan; of equal captions the first, unless duplicates are kept."""
    if duplicates == "keep":
        return np.arange(len(captions))
    keys = np.fromiter(_caption_keys(captions), dtype=np.uint64, count=len(captions))
    return np.sort(np.unique(keys, return_index=True)[1])


def _caption_keys(captions: pa.ChunkedArray) -> Iterator[int]:
    """64-bit hashes: a caption an int, so that ten million captions fit in memory."""
    for batch in pa.table({"caption": captions}).to_batches(max_chunksize=65_536):
        for caption in batch["caption"].to_pylist():
            yield int.from_bytes(hashlib.blake2b(caption.encode(), digest_size=8).digest(), "big")
