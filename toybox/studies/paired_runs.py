"""Two runs of the same planned rows, made with other settings: are as many pairs kept, and are they right?

    python -m toybox.studies.paired_runs --first runs/toybox-20 --second runs/toybox-12

``right`` is a candidate of Prompt-to-Prompt that the independent judge finds right, of the candidates that
both runs have drawn. ``kept`` and ``kept, right`` are of all planned Prompt-to-Prompt rows that both filters
have reached. Intervals are 95 %, by bootstrap over captions.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from editor.comparison.paired import Figures, paired
from editor.evaluation.evaluate import ALL
from pipeline.store.plan import read_part
from pipeline.views.run import open_state
from stages.tasks import load_tasks
from toybox.evaluation.evaluate_edits import PROMPTS, JudgedEdit, judge_edits
from toybox.evaluation.judge import Judge


@dataclass(frozen=True)
class Planned:
    """A planned Prompt-to-Prompt row."""

    caption: str
    task: str


def planned_rows(run: Path) -> Mapping[str, Planned]:
    """The Prompt-to-Prompt rows of the parts that the filter has decided, by id."""
    state, tasks = open_state(run), load_tasks(PROMPTS)
    decided = [part for part in range(state.plan.parts) if state.done(state.steps["filter"], part)]
    return {
        row["id"]: Planned(row["caption"], row["task"])
        for part in decided
        for row in read_part(state.folder.plan, part, ["id", "caption", "task"]).to_pylist()
        if tasks[row["task"]].method == "prompt2prompt"
    }


def of_candidates(edits: Sequence[JudgedEdit], rows: Mapping[str, Planned]) -> Figures:
    """``right`` of every candidate."""
    known = [edit for edit in edits if edit.row in rows]
    return Figures(
        [f"{edit.row} {edit.candidate}" for edit in known],
        [rows[edit.row].caption for edit in known],
        [edit.task for edit in known],
        ("right",),
        np.array([[edit.right] for edit in known], np.float64),
    )


def of_rows(edits: Sequence[JudgedEdit], rows: Mapping[str, Planned]) -> Figures:
    """``kept`` and ``kept, right`` of every planned row, also of rows that were not drawn."""
    chosen = {edit.row: edit.right for edit in edits if edit.chosen}
    return Figures(
        list(rows),
        [row.caption for row in rows.values()],
        [row.task for row in rows.values()],
        ("kept", "kept, right"),
        np.array([[name in chosen, chosen.get(name, False)] for name in rows], np.float64),
    )


def joined(figures: Sequence[Figures]) -> Figures:
    """The figures of several runs. A row of two runs with one id stays two rows."""
    return Figures(
        [f"{number} {name}" for number, each in enumerate(figures) for name in each.ids],
        [group for each in figures for group in each.groups],
        [task for each in figures for task in each.tasks],
        figures[0].columns,
        np.concatenate([each.values for each in figures]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=Path, nargs="+", required=True)
    parser.add_argument("--second", type=Path, nargs="+", required=True, help="in the same order")
    options = parser.parse_args()
    if len(options.first) != len(options.second):
        parser.error("give as many runs after --second as after --first")
    judge = Judge.load()
    arms = [
        [(planned_rows(run), list(judge_edits(run, judge))) for run in runs]
        for runs in (options.first, options.second)
    ]
    table = Table("figure", "of", "first", "second", "second - first")
    for figures in (of_candidates, of_rows):
        first, second = (joined([figures(edits, rows) for rows, edits in arm]) for arm in arms)
        for column, found in paired([first], [second])[ALL].items():
            difference = found.difference
            table.add_row(
                column,
                str(difference.count),
                f"{found.first.mean:.3f}",
                f"{found.second.mean:.3f}",
                f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
