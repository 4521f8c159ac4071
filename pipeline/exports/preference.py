"""Preference pairs: the published target, and a candidate of the same row that the filter rejects."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from pipeline.exports import SIDES, Export, Side, picture
from pipeline.exports.card import example, write_card
from pipeline.exports.parquet import write_files
from pipeline.views.rows import kept_rows
from stages.filter.choice import objection
from stages.pair import as_pair
from stages.score.metrics import metrics_in, score_columns, scores_of
from stages.shards.card import PICTURE, Columns

READS = {
    "plan": ["task"],
    "instruct": ["instruction"],
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
    units = [publishing.parts(unit, parts) for unit in range(publishing.unit_count(parts))]
    columns = columns_of(export.stages)
    schema = pa.schema([(name, dtype) for name, (dtype, _) in columns.items()])
    write_files(
        export,
        schema,
        [_present(export, unit) for unit in units],
        (chain.from_iterable(_tables(export, schema, part) for part in unit) for unit in units),
    )
    write_card(export, columns, schema, example("instruction", "input", "chosen"))


def _present(export: Export, parts: Iterable[int]) -> list[Side]:
    """The sides that the parts have pairs on, read without pictures."""
    there = {
        sides[row["id"]]
        for part in parts
        for sides in [export.sides([part])]
        for row in _rows(export, part, {"edit": []})
        if _rejected(export, row)
    }
    return [side for side in SIDES if side in there]


def _rows(export: Export, part: int, reads: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """The selected rows of a part; ``reads`` adds columns to those that the choice needs, by stage."""
    state = export.state
    if not state.done(state.steps["select"], part):
        return
    columns = {**READS, **score_columns(export.stages), "filter": ["choice"], **reads}
    if "judge" in columns:
        columns["judge"] = [*columns["judge"], "recaptions"]
    yield from kept_rows(state, part, "select", columns)


def _tables(export: Export, schema: pa.Schema, part: int) -> Iterator[tuple[Side, pa.Table]]:
    sides = export.sides([part])
    for row in _rows(export, part, {"edit": ["anchor", "candidates"]}):
        if rejected := _rejected(export, row):
            side = sides[row["id"]]
            export.written[row["task"], side] += 1
            yield side, pa.Table.from_pylist([_preference(export, row, *rejected)], schema=schema)
        export.done(1)


def _rejected(export: Export, row: Mapping[str, Any]) -> tuple[int, str] | None:
    """The first candidate that the filter rejects, and why; None if the row gives no pair."""
    task = export.tasks[row["task"]]
    if task.direction == "reverse" or _rewritten(row):
        return None
    bounds, model = export.bounds[task.name], export.models.get(task.name)
    reasons = enumerate(objection(scores, bounds, model) for scores in scores_of(row))
    return next(((number, reason) for number, reason in reasons if reason), None)


def _preference(export: Export, row: Mapping[str, Any], rejected: int, reason: str) -> dict[str, Any]:
    task, scores, chosen = export.tasks[row["task"]], scores_of(row), row["choice"]
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
        "rejected_reason": reason,
        "chosen_scores": scores[chosen],
        "rejected_scores": scores[rejected],
        **{name: picture(row["id"], name, data) for name, data in named.items()},
    }


def _rewritten(row: Mapping[str, Any]) -> bool:
    """Whether the judge wrote the published instruction."""
    other = row["recaptions"][row["choice"]] if "recaptions" in row else None
    return other is not None and other["taken"]
