"""What verdicts say so far, as a table for the terminal; and the check of verdicts from a file."""

from collections.abc import Sequence

from rich.console import Group

from pipeline.errors import UserError
from pipeline.verdicts.agreement import agreements
from pipeline.verdicts.estimate import Estimate, by_task, current, estimate, known_rows
from pipeline.verdicts.population import Reviewable
from pipeline.verdicts.verdict import Verdict
from pipeline.views.status import plain_table


def check_given(file: str, verdicts: Sequence[Verdict], population: Sequence[Reviewable]) -> None:
    """Check that verdicts are about candidates of the run.

    Raises:
        UserError: one is not; nothing may be stored then.
    """
    rows = {(row.id, row.turn): row for row in population}
    for verdict in verdicts:
        row = rows.get((verdict.id, verdict.turn))
        where = f"--from {file}: row {verdict.id}, turn {verdict.turn}"
        if row is None:
            raise UserError(f"{where}: the filter of this run has not decided about such a row")
        if verdict.candidate >= len(row.scores):
            raise UserError(f"{where}: there is no candidate {verdict.candidate}; it has {len(row.scores)}")


def summary_table(population: Sequence[Reviewable], verdicts: Sequence[Verdict]) -> Group:
    """Precision and recall by task, and the agreement of people."""
    known = known_rows(population, verdicts)
    table = plain_table("task", "rows judged", "precision of kept", "recall")
    for task, found in by_task(known).items():
        table.add_row(task, *_cells(found))
    table.add_row("all", *_cells(estimate(known)), style="bold")
    lines = [f"agreement: {agreement}" for agreement in agreements(verdicts)]
    stale = len(verdicts) - len(current(population, verdicts))
    if stale:
        lines.append(
            f"{stale} verdicts are about rows or pictures that the run no longer has; they do not count"
        )
    return Group(table, *lines)


def _cells(found: Estimate) -> list[str]:
    return [str(found.judged), str(found.precision), str(found.recall)]
