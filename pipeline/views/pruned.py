"""What ``editpairs prune`` would drop of a run, and what it has dropped."""

from collections.abc import Iterable

from pipeline.engine.pruning import Prunable
from pipeline.engine.state import RunState
from pipeline.shown import DataTable, plain_table, size_shown


def pruning_table(files: Iterable[Prunable]) -> DataTable:
    """What would be dropped: by step, its columns, the number of files, and the bytes of the columns."""
    table = plain_table("stage", "columns", "files", "size", text=2)
    by_step: dict[str, list[Prunable]] = {}
    for each in files:
        by_step.setdefault(each.step, []).append(each)
    for name, found in by_step.items():
        size = sum(each.size for each in found)
        table.add_row(name, ", ".join(found[0].columns), str(len(found)), size_shown(size))
    return table


def pruned_lines(state: RunState) -> list[str]:
    """One line per step that has lost columns."""
    lines = []
    for step in state.steps.values():
        footers = (state.footer(step, unit) for unit in range(step.unit_count(state.plan.parts)))
        gone = [footer.pruned for footer in footers if footer is not None and footer.pruned is not None]
        if gone:
            columns = ", ".join(dict.fromkeys(name for pruned in gone for name in pruned.columns))
            size = size_shown(sum(pruned.size for pruned in gone))
            lines.append(
                f"pruned: {step.name} has no {columns} in {len(gone)} parts ({size}); all its rows are there"
            )
    return lines
