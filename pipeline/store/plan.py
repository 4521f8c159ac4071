"""The plan file: the caption, task and part of each planned row. One row group per part."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.store.location import Location
from pipeline.store.sealed import (
    DamagedFileError,
    Place,
    believing,
    check_digest,
    open_file,
    read_metadata,
)

PLACE = Place("", "plan", 0)

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
"""``row`` is the caption's index in its file. All randomness of a row derives from ``seed``."""
KEPT = pa.field("kept_columns", pa.string())
"""JSON of the caption file's other columns, in the plan of a run with ``captions.keep``."""
PICTURE = [
    pa.field("picture", pa.string()),
    pa.field("picture_digest", pa.string()),
    pa.field("picture_flaw", pa.string(), nullable=False),
]
"""Each row's picture, in the plan of a run with ``captions.picture`` (:mod:`pipeline.inputs.pictures`)."""


@dataclass(frozen=True)
class Plan:
    """The record in the footer of ``plan.parquet``."""

    digest: str
    settings: Mapping[str, Any]
    captions: int
    duplicates: int
    part_rows: tuple[int, ...]
    """Number of rows in each part."""
    tasks: Counter[str]
    """Number of planned rows by task."""

    @property
    def parts(self) -> int:
        return len(self.part_rows)

    @property
    def rows(self) -> int:
        return sum(self.part_rows)


def read_plan(path: Location) -> Plan | None:
    """Read the record of a run's plan; None if there is no plan.

    Raises:
        OSError: the file cannot be read.
        UserError: the plan is damaged, or an earlier version of editpairs wrote it.
    """
    try:
        content, groups = read_metadata(path, PLACE)
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        raise _lost(error) from error
    try:
        plan = Plan(
            digest=content["digest"],
            settings=dict(content["settings"]),
            captions=content["captions"],
            duplicates=content["duplicates"],
            part_rows=tuple(groups.row_group(i).num_rows for i in range(groups.num_row_groups)),
            tasks=Counter(dict(content["tasks"])),
        )
        counts = [plan.captions, plan.duplicates, *plan.tasks.values()]
        if any(type(n) is not int or n < 0 for n in counts) or plan.tasks.total() != plan.rows:
            raise ValueError("a count is not one of the plan's rows")
        return plan
    except (KeyError, TypeError, ValueError) as error:
        raise _lost(DamagedFileError(path, "its footer is not one of a plan")) from error


def check_plan(path: Location) -> None:
    """Read the whole plan and check its checksums.

    Raises:
        OSError, UserError: the plan is missing, cannot be read, or was changed.
    """
    try:
        check_digest(path, PLACE)
    except DamagedFileError as error:
        raise _lost(error) from error


def _lost(error: DamagedFileError) -> UserError:
    return UserError(
        f"{error}. No row of the run can be told without its plan: put a copy of it back, or use another run "
        "name (--set name=...). A run of an earlier version is read by that version alone"
    )


def read_part(path: Location, part: int, columns: list[str]) -> pa.Table:
    """Columns of one part's rows, in order.

    Raises:
        OSError, DamagedFileError: the plan is missing, cannot be read, or was changed in the rows read.
    """
    with believing(path):
        return _open(path, path.stat().st_mtime_ns).read_row_group(part, columns=columns)


def origins(path: Location, part: int) -> dict[str, str]:
    """By row of a part, what it has in common with the other edits of its caption: the caption's text.

    For a picture without a caption it is the picture's digest. Errors as of :func:`read_part`.
    """
    with believing(path):
        there = _open(path, path.stat().st_mtime_ns).schema_arrow.names
    columns = [name for name in ("id", "caption", "picture_digest") if name in there]
    return {
        row["id"]: row["caption"] if row["caption"].strip() else row.get("picture_digest") or row["caption"]
        for row in read_part(path, part, columns).to_pylist()
    }


@lru_cache(maxsize=1)
def _open(path: Location, modified_ns: int) -> pq.ParquetFile:
    """Open the plan, cached: a worker reads many parts, and the footer lists every part."""
    return open_file(path)
