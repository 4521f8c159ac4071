"""The rows of an export by task and side, as a table for the terminal."""

from collections.abc import Mapping

from pipeline.exports import SIDES, Side
from pipeline.shown import DataTable, plain_table


def counts_table(written: Mapping[tuple[str, Side], int]) -> DataTable:
    """A line for each task, and one for all of them."""
    table = plain_table("task", *SIDES)
    for task in sorted({task for task, _ in written}):
        table.add_row(task, *(str(written.get((task, side), 0)) for side in SIDES))
    totals = {side: sum(rows for (_, of), rows in written.items() if of == side) for side in SIDES}
    table.add_row("all", *(str(totals[side]) for side in SIDES))
    return table
