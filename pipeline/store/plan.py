"""The plan's file: which caption gets which task, in which part. One row group a part."""

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


def read_plan(path: Location) -> Plan | None:
    """The plan of a run; None if there is none.

    Raises:
        OSError: it cannot be read.
        UserError: it is damaged, or an earlier version of editpairs wrote it.
    """
    try:
        content, groups = read_metadata(path, PLACE)
        return Plan(
            digest=content["digest"],
            settings=content["settings"],
            captions=content["captions"],
            duplicates=content["duplicates"],
            part_rows=tuple(groups.row_group(i).num_rows for i in range(groups.num_row_groups)),
            tasks=Counter(content["tasks"]),
        )
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise DamagedFileError(path, "its footer is not one of a plan") from error
    except DamagedFileError as error:
        raise _lost(error) from error


def check_plan(path: Location) -> None:
    """Read the whole plan.

    Raises:
        OSError, UserError: it is missing, cannot be read, or was changed.
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
        OSError, DamagedFileError: the plan is missing, cannot be read, or was changed in what is read.
    """
    with believing(path):
        return _open(path, path.stat().st_mtime_ns).read_row_group(part, columns=columns)


@lru_cache(maxsize=1)
def _open(path: Location, modified_ns: int) -> pq.ParquetFile:
    """A worker reads many parts of one plan, whose footer lists every part: parse it once."""
    return open_file(path)
