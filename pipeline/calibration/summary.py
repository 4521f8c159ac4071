"""What a calibration does to a run, as a table for the terminal: precision and recall, before and after."""

from collections.abc import Sequence

from rich.console import Group

from pipeline.calibration.calibrate import Calibrated
from pipeline.calibration.figures import measured, measured_by_task
from pipeline.verdicts.estimate import Estimate, Known, rows_left
from pipeline.verdicts.session import WANTED
from pipeline.views.status import plain_table


def summary(
    before: Sequence[Known], after: Sequence[Known], calibrated: Calibrated, precision: float
) -> Group:
    """A table with one line per task, and a line for each task that keeps its bounds.

    Args:
        before: judged rows as the run's filter decided about them.
        after: the same rows as decided by cross-validated calibrations.
        calibrated: what is written.
        precision: wanted.
    """
    table = plain_table(
        "task",
        "judged",
        "kept",
        "precision",
        "recall",
        "kept",
        "precision",
        "recall",
        f"{precision:g} reached?",
    )
    old, new = measured_by_task(before), measured_by_task(after)
    for task in old:
        of_task = [[row for row in rows if row.row.task == task] for rows in (before, after)]
        answer = "bounds kept" if task in calibrated.left_out else reached(new[task], precision)
        table.add_row(task, *_cells(of_task[0], old[task]), *_cells(of_task[1], new[task])[1:], answer)
    overall = measured(after)
    table.add_row(
        "all",
        *_cells(before, measured(before)),
        *_cells(after, overall)[1:],
        reached(overall, precision),
        style="bold",
    )
    lines = [f"{task} keeps its bounds: {why}" for task, why in calibrated.left_out.items()]
    unjudged = sum(row.row.kept and row.got is None for row in after)
    if unjudged:
        lines.append(f"{unjudged} of the rows would be kept with a candidate that nobody judged")
    return Group(
        "Kept, precision and recall: first of the run's filter, then calibrated, for captions held out.",
        table,
        *lines,
    )


def reached(found: Estimate, wanted: float) -> str:
    """Whether a task's precision is the wanted one, or how many more kept rows must be judged to tell."""
    share = found.precision
    unknown = share.value is None or share.high - share.low > 2 * WANTED
    if unknown and share.low < wanted <= share.high:
        return f"judge {max(1, rows_left({'': found}, WANTED)[''])} more"
    return "yes" if share.low >= wanted else "no" if share.high < wanted else "about"


def _cells(rows: Sequence[Known], found: Estimate) -> list[str]:
    total = sum(row.weight for row in rows)
    kept = sum(row.weight for row in rows if row.row.kept)
    return [str(found.judged), f"{kept / total:.0%}", str(found.precision), str(found.recall)]
