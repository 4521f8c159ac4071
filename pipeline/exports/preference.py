"""Preference pairs: the published target, and a candidate of the same row that the filter rejects."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from pipeline.exports import Export, Side, picture, side_of
from pipeline.exports.card import write_card
from pipeline.exports.parquet import write_files
from pipeline.views.rows import kept_rows
from stages.filter.stage import broken_bound
from stages.pair import as_pair
from stages.score.metrics import METRICS, SCORE_COLUMNS, scores_of
from stages.shards.stage import PICTURE

READS = {
    "plan": ["task", "caption"],
    "instruct": ["instruction"],
    "edit": ["anchor", "candidates"],
    "score": SCORE_COLUMNS,
    "filter": ["choice"],
}
_SCORES = pa.struct([(metric, pa.float32()) for metric in METRICS])
COLUMNS = {
    "id": (pa.string(), "the row's name"),
    "task": (pa.string(), "name of the task"),
    "input": (PICTURE, "input image (PNG)"),
    "instruction": (pa.string(), "edit instruction"),
    "chosen": (PICTURE, "the published target (PNG)"),
    "rejected": (PICTURE, "the target of a candidate that the filter rejects (PNG)"),
    "rejected_reason": (pa.string(), "the bound that the rejected target violates"),
    "chosen_scores": (_SCORES, "scores of the published target"),
    "rejected_scores": (_SCORES, "scores of the rejected target"),
}
SCHEMA = pa.schema([(name, dtype) for name, (dtype, _) in COLUMNS.items()])


def write(export: Export) -> None:
    """Write the pairs of the first turn.

    A row with one candidate, or whose candidates all pass, gives no pair.

    The candidates of a reverse task differ in the input, not in the target. These rows give no pair either.
    """
    parts = export.state.plan.parts
    publishing = next(step for step in export.state.steps.values() if step.publishes)
    units = (publishing.parts(unit, parts) for unit in range(publishing.unit_count(parts)))
    write_files(
        export, SCHEMA, (chain.from_iterable(_tables(export, part) for part in unit) for unit in units)
    )
    write_card(export, COLUMNS)


def _tables(export: Export, part: int) -> Iterator[tuple[Side, pa.Table]]:
    state = export.state
    if not state.done(state.steps["select"], part):
        return
    for row in kept_rows(state, part, "select", READS):
        pair = _preference(export, row)
        if pair is not None:
            export.written[row["task"]] += 1
            side = side_of(row["caption"], export.test_share)
            yield side, pa.Table.from_pylist([pair], schema=SCHEMA)
        export.done(1)


def _preference(export: Export, row: dict[str, Any]) -> dict[str, Any] | None:
    task = export.tasks[row["task"]]
    if task.direction == "reverse":
        return None
    scores, bounds = scores_of(row), export.bounds[task.name]
    broken = {k: reason for k, s in enumerate(scores) if (reason := broken_bound(s, bounds))}
    if not broken:
        return None
    chosen, rejected = row["choice"], min(broken)
    pictures = {
        side: as_pair(task, row["anchor"], row["candidates"][k]["image"], "", "")
        for side, k in (("chosen", chosen), ("rejected", rejected))
    }
    named = {
        "input": pictures["chosen"].input,
        "chosen": pictures["chosen"].target,
        "rejected": pictures["rejected"].target,
    }
    return {
        "id": row["id"],
        "task": task.name,
        "instruction": row["instruction"],
        "rejected_reason": broken[rejected],
        "chosen_scores": scores[chosen],
        "rejected_scores": scores[rejected],
        **{name: picture(row["id"], name, data) for name, data in named.items()},
    }
