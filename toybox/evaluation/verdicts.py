"""Write the independent judge's verdicts about every Prompt-to-Prompt candidate of a toybox run.

python -m toybox.evaluation.verdicts runs/toybox verdicts.csv
editpairs review runs/toybox --from verdicts.csv
"""

import argparse
import csv
import io
from pathlib import Path

from pipeline.store.location import locate
from pipeline.store.outputs import new_file
from toybox.evaluation.evaluate_edits import judge_edits
from toybox.evaluation.judge import Judge

WHO = "judge"
COLUMNS = ("id", "candidate", "verdict", "who")


def verdict_lines(run: Path, judge: Judge) -> list[tuple[str, int, str, str]]:
    """A line of ``COLUMNS`` for each candidate of the rows that the filter has kept or rejected."""
    return [
        (edit.row, edit.candidate, "right" if edit.right else "wrong", WHO)
        for edit in judge_edits(run, judge)
        if edit.decided
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run of a toybox manifest")
    parser.add_argument("out", help="the .csv file to write")
    options = parser.parse_args()
    with new_file(locate(options.out)) as file:
        lines = verdict_lines(options.run, Judge.load())
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *lines])
        file.write(text.getvalue().encode())
    print(f"wrote {options.out}: {len(lines)} verdicts")


if __name__ == "__main__":
    main()
