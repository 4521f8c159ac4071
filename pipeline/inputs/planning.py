"""Planning: assign tasks to captions, once per run.

All later stages read the plan, so the plan never changes. If the manifest would plan other rows, the command
stops and shows the difference.
"""

import hashlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.inputs.captions import content_hash
from pipeline.inputs.kept_columns import read_kept
from pipeline.inputs.pictures import Pictures, pictures_of
from pipeline.inputs.rows import read_input
from pipeline.manifest.manifest import Manifest, tasks_of
from pipeline.store.folder import RunFolder
from pipeline.store.location import Location
from pipeline.store.plan import KEPT, PICTURE, PLACE, SCHEMA, Plan, check_plan, read_plan
from pipeline.store.sealed_writer import MAX_GROUP_BYTES, SealedWriter
from stages.seeds import derive_seed, shape_of
from stages.tasks import Tasks


def ensure_plan(folder: RunFolder, manifest: Manifest) -> Plan:
    """Write the plan if it is missing; otherwise check that the manifest still plans the same rows.

    Raises:
        OSError: the plan cannot be read.
        UserError: the run was planned with another caption file, seed, mixture or part size; the plan is
            damaged; or the plan is missing although parts exist.
    """
    path, settings = folder.plan, plan_settings(manifest)
    plan = read_plan(path)
    if plan is None:
        if folder.has_parts():
            raise UserError(
                f"{path} is missing, but {path.parent} holds parts that were made by it: put it back, use "
                "another run name (--set name=...), or delete the parts to begin anew"
            )
        _write_plan(path, manifest, settings)
        plan = read_plan(path)
        assert plan is not None
    elif plan.settings == settings:
        check_plan(path)
    else:
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
    """The manifest keys that determine the planned rows, with their values."""
    return {
        "captions.file (content)": content_hash(manifest.captions.location),
        "captions.column": manifest.captions.column,
        "captions.duplicates": manifest.captions.duplicates,
        "seed": manifest.seed,
        "rows": manifest.rows,
        "repeats": manifest.repeats,
        "rows_per_part": manifest.rows_per_part,
        "tasks.mixture": dict(manifest.tasks.mixture),
        **({"captions.keep": list(manifest.captions.keep)} if manifest.captions.keep else {}),
        **({"captions.picture": manifest.captions.picture} if manifest.captions.picture else {}),
        **({"shapes of pictures": shapes} if (shapes := _shapes(manifest)) > 1 else {}),
    }


def _shapes(manifest: Manifest) -> int:
    return max((config.shapes for config in manifest.sections.values()), default=1)


def rows_by_task(rows: int, mixture: Mapping[str, float]) -> dict[str, int]:
    """Rows per task: the mixture's exact shares, rounded by largest remainder.

    Ties follow the mixture's order.
    """
    weights = {task: Fraction(weight) for task, weight in mixture.items()}
    total = sum(weights.values())
    shares = {task: rows * weight / total for task, weight in weights.items()}
    result = {task: int(share) for task, share in shares.items()}
    by_remainder = sorted(shares, key=lambda task: result[task] - shares[task])
    for task in by_remainder[: rows - sum(result.values())]:
        result[task] += 1
    return result


def _write_plan(path: Location, manifest: Manifest, settings: Mapping[str, Any]) -> None:
    captions, names = read_input(manifest.captions)
    if content_hash(manifest.captions.location) != settings["captions.file (content)"]:
        raise UserError(f"captions.file: {manifest.captions.file} was changed while it was read: run again")
    keep = manifest.captions.keep
    others = read_kept(manifest.captions.location, keep) if keep else None
    if others is not None and len(others) != len(captions):
        raise UserError(f"captions.keep: {manifest.captions.file} was changed while it was read: run again")
    pictures = pictures_of(manifest.captions)
    schema = pa.schema([*SCHEMA, *([KEPT] if keep else []), *(PICTURE if pictures else [])])
    # A picture chooses its shape itself, when it is read.
    by_name, shapes = tasks_of(manifest), 1 if pictures else _shapes(manifest)
    rows = _kept_rows(captions, manifest.captions.duplicates, names)
    duplicates = len(captions) - len(rows)
    planned = len(rows) * manifest.repeats
    if manifest.rows is not None:
        planned = min(planned, manifest.rows)
    quota = rows_by_task(planned, manifest.tasks.mixture)
    task_names = list(quota)
    tasks = np.repeat(np.arange(len(task_names), dtype=np.int32), list(quota.values()))
    np.random.default_rng(derive_seed(manifest.seed, "tasks")).shuffle(tasks)
    part_rows = manifest.rows_per_part // manifest.repeats * manifest.repeats
    with SealedWriter(path, schema) as writer:
        for start in range(0, planned, part_rows):
            index = np.arange(start, min(start + part_rows, planned))
            chosen = rows[index // manifest.repeats]
            table = _part_table(
                chosen,
                _taken(captions, chosen).to_pylist(),
                [task_names[code] for code in tasks[index]],
                index % manifest.repeats,
                manifest.seed,
            )
            if others is not None:
                table = table.append_column(KEPT, _taken(others, chosen).cast(pa.string()))
            if pictures is not None and names is not None:
                table = _with_pictures(table, pictures, names)
            table = _by_pass(table, by_name, shapes)
            if table.nbytes > MAX_GROUP_BYTES:  # a part is one row group
                raise UserError(
                    f"rows_per_part: the captions of {part_rows} rows hold {table.nbytes >> 20} MB, and a "
                    f"part may hold {MAX_GROUP_BYTES >> 20}: lower rows_per_part, or look at captions.file"
                )
            writer.write(table)
        writer.commit(
            PLACE, {"settings": settings, "captions": len(captions), "duplicates": duplicates, "tasks": quota}
        )


def _with_pictures(table: pa.Table, pictures: Pictures, names: pa.ChunkedArray) -> pa.Table:
    """A part's rows with the columns ``PICTURE``. A caption's picture is read once for all its edits."""
    numbers = np.unique(table["row"].to_numpy())
    found = _taken(names, numbers).to_pylist()
    columns = {"picture": found, **pictures.described(numbers.tolist(), found)}
    at = np.searchsorted(numbers, table["row"].to_numpy())
    for field in PICTURE:
        table = table.append_column(field, pa.array(columns[field.name], field.type).take(pa.array(at)))
    return table


def _taken(captions: pa.ChunkedArray, rows: np.ndarray) -> pa.ChunkedArray:
    """The captions at ascending row numbers, chunk by chunk.

    ``take`` on the whole column would copy all of it.
    """
    first, last = int(rows[0]), int(rows[-1])
    return captions.slice(first, last - first + 1).take(pa.array(rows - first))


def _part_table(
    rows: np.ndarray, captions: list[str], tasks: list[str], repeats: np.ndarray, seed: int
) -> pa.Table:
    ids = [
        hashlib.blake2b(f"{row}\x1f{caption}\x1f{task}\x1f{repeat}".encode(), digest_size=16).hexdigest()
        for row, caption, task, repeat in zip(rows.tolist(), captions, tasks, repeats.tolist(), strict=True)
    ]
    seeds = [derive_seed(seed, row_id) for row_id in ids]
    return pa.Table.from_arrays(
        [
            pa.array(values, field.type)
            for values, field in zip((ids, rows, captions, tasks, repeats, seeds), SCHEMA, strict=True)
        ],
        schema=SCHEMA,
    )


def _by_pass(table: pa.Table, tasks: Tasks, shapes: int) -> pa.Table:
    """A part's rows with those that can share a forward pass next to each other, so that batches are full.

    A pass has one shape of picture, and only tasks that are drawn need the edit stage's.
    """
    names, seeds = (table[column].to_pylist() for column in ("task", "seed"))
    computed = np.array([not tasks[name].drawn for name in names])
    of_rows = np.array([shape_of(seed, shapes) if shapes > 1 else 0 for seed in seeds])
    return table.take(pa.array(np.lexsort((computed, of_rows)))).combine_chunks()


def _kept_rows(captions: pa.ChunkedArray, duplicates: str, pictures: pa.ChunkedArray | None) -> np.ndarray:
    """The row numbers to plan. Without duplicates, only the first of several equal captions is planned.

    With pictures, rows are equal whose captions and pictures' paths are; a picture in parquet has no equal.
    """
    if duplicates == "keep":
        return np.arange(len(captions))
    keys = np.fromiter(_caption_keys(captions, pictures), dtype=np.int64, count=len(captions))
    return np.sort(np.unique(keys, return_index=True)[1])


def _caption_keys(captions: pa.ChunkedArray, pictures: pa.ChunkedArray | None) -> Iterator[int]:
    """64-bit hashes of captions. One int per caption lets ten million captions fit in memory."""
    columns = {"caption": captions} if pictures is None else {"caption": captions, "picture": pictures}
    row = 0
    for batch in pa.table(columns).to_batches(max_chunksize=65_536):
        if pictures is None:
            yield from map(hash, batch["caption"].to_pylist())
            continue
        for caption, name in zip(batch["caption"].to_pylist(), batch["picture"].to_pylist(), strict=True):
            yield hash((caption, row if name is None else name))
            row += 1
