"""Preference pairs: the published target, and a candidate of the same row that the filter rejects."""

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any

import pyarrow as pa

from pipeline.exports import Export, Side, picture, side_of
from pipeline.exports.card import write_card
from pipeline.exports.parquet import write_files
from pipeline.views.rows import kept_rows
from stages.filter.choice import objection
from stages.pair import as_pair
from stages.score.metrics import metrics_in, score_columns, scores_of
from stages.shards.card import PICTURE, Columns

READS = {
    "plan": ["task", "caption"],
    "instruct": ["instruction"],
    "edit": ["anchor", "candidates"],
}


def columns_of(stages: Collection[str]) -> Columns:
    """Type and meaning of every column, in an export of a run of these stages."""
    scores = pa.struct([(metric, pa.float32()) for metric in metrics_in(stages)])
    return {
        "id": (pa.string(), "the row's name"),
        "task": (pa.string(), "name of the task"),
        "input": (PICTURE, "input image (PNG)"),
        "instruction": (pa.string(), "edit instruction"),
        "chosen": (PICTURE, "the published target (PNG)"),
        "rejected": (PICTURE, "the target of a candidate that the filter rejects (PNG)"),
        "rejected_reason": (pa.string(), "why the filter rejects that target"),
        "chosen_scores": (scores, "scores of the published target"),
        "rejected_scores": (scores, "scores of the rejected target"),
    }


def write(export: Export) -> None:
    """Write the pairs of the first turn.

    A row with one candidate, or whose candidates all pass, gives no pair.

    The candidates of a reverse task differ in the input, not in the target. These rows give no pair either,
    nor do rows whose published instruction is the judge's: the other candidates were not drawn for it.
    """
    parts = export.state.plan.parts
    publishing = next(step for step in export.state.steps.values() if step.publishes)
    units = (publishing.parts(unit, parts) for unit in range(publishing.unit_count(parts)))
    columns = columns_of(export.stages)
    schema = pa.schema([(name, dtype) for name, (dtype, _) in columns.items()])
    write_files(
        export,
        schema,
        (chain.from_iterable(_tables(export, schema, part) for part in unit) for unit in units),
    )
    write_card(export, columns)


def _tables(export: Export, schema: pa.Schema, part: int) -> Iterator[tuple[Side, pa.Table]]:
    state = export.state
    if not state.done(state.steps["select"], part):
        return
    reads = {**READS, **score_columns(export.stages), "filter": ["choice"]}
    if "judge" in reads:
        reads["judge"] = [*reads["judge"], "recaptions"]
    for row in kept_rows(state, part, "select", reads):
        pair = _preference(export, row)
        if pair is not None:
            export.written[row["task"]] += 1
            side = side_of(row["caption"], export.test_share)
            yield side, pa.Table.from_pylist([pair], schema=schema)
        export.done(1)


def _preference(export: Export, row: dict[str, Any]) -> dict[str, Any] | None:
    task = export.tasks[row["task"]]
    if task.direction == "reverse" or _rewritten(row):
        return None
    scores, bounds, model = scores_of(row), export.bounds[task.name], export.models.get(task.name)
    broken = {k: reason for k, s in enumerate(scores) if (reason := objection(s, bounds, model))}
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


def _rewritten(row: Mapping[str, Any]) -> bool:
    """Whether the judge wrote the published instruction."""
    other = row["recaptions"][row["choice"]] if "recaptions" in row else None
    return other is not None and other["taken"]
