"""What the readers of other projects' data sets have in common."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.store.location import Location


class UnusableRowError(Exception):
    """A row that cannot be used. The message is the reason, which is counted."""


@dataclass(frozen=True)
class ForeignRow:
    """A row before its pictures are decoded; each picture is a value of its column."""

    id: str
    group: str
    instruction: str
    before: Any
    after: Any | None = None
    before_caption: str = ""
    after_caption: str = ""
    task: str | None = None


class Reader(Protocol):
    """Reads the rows of a data set."""

    columns: Sequence[str]
    """Columns to read, where a file has them."""

    def __init__(self, files: Sequence[Location], split: str, notes: Counter[str]) -> None: ...

    def read(self, file: Location, number: int, record: Mapping[str, Any]) -> ForeignRow | None:
        """A row; None if it was not asked for. Rows are numbered from 1.

        Raises:
            UnusableRowError: it cannot be used.
        """


def text(record: Mapping[str, Any], name: str) -> str:
    """A text of a record; empty if it is missing."""
    value = record.get(name)
    return value if isinstance(value, str) else "" if value is None else str(value)
