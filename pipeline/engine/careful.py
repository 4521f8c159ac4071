"""Running every row of a unit alone, to find the one that ends its process (``pipeline.engine.losses``)."""

from collections.abc import Callable, Generator, Iterable

import pyarrow as pa

from pipeline.engine.jobs import Unit
from pipeline.engine.streaming import Made


def one_by_one(
    batches: Iterable[pa.Table],
    unit: Unit,
    alone: Callable[[pa.Table], Made],
    poisoned: Callable[[pa.Table], Made],
) -> Generator[Made, None, None]:
    """The records of a part's rows, each run alone. Suspects run after all others.

    The batches are those of an undisturbed run, so that the file has the same row groups. From the first
    suspect on, rows and records of the part are kept in memory.

    Args:
        batches: the part's rows.
        unit: names the suspects, and the rows that fail without running.
        alone: runs one row.
        poisoned: the record of a row that fails without running.
    """

    def made_or_later(row: pa.Table) -> pa.Table | Made:
        """The result of a row, or the row itself if it must run later."""
        row_id = row["id"][0].as_py()
        if row_id in unit.suspects:
            return row
        return poisoned(row) if row_id in unit.poison else alone(row)

    held: list[list[pa.Table | Made]] = []
    for rows in batches:
        batch = [made_or_later(rows.slice(i, 1)) for i in range(rows.num_rows)]
        if held or any(isinstance(entry, pa.Table) for entry in batch):
            held.append(batch)
        else:
            yield _joined(batch)
    for batch in held:
        yield _joined([alone(entry) if isinstance(entry, pa.Table) else entry for entry in batch])


def _joined(made: list[Made]) -> Made:
    return pa.concat_tables([records for records, _ in made]), [e for _, errors in made for e in errors]
