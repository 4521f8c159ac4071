"""Preference pairs: the published target against a candidate of the same row that the filter rejects."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.exports import BATCH, Export, Side, side_of
from pipeline.exports.card import write_card
from pipeline.exports.parquet import write_files
from pipeline.rows import kept_ids, read_rows
from stages.filter import FilterConfig, broken_bound, resolve_bounds
from stages.pair import as_pair
from stages.score.metrics import METRICS
from stages.shards import PICTURE

READS = {
    "plan": ["task", "caption"],
    "instruct": ["instruction"],
    "edit": ["anchor", "candidates"],
    "score": ["scores"],
    "filter": ["choice"],
}
_SCORES = pa.struct([(metric, pa.float32()) for metric in METRICS])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("input", PICTURE),
        ("instruction", pa.string()),
        ("chosen", PICTURE),
        ("rejected", PICTURE),
        ("rejected_reason", pa.string()),
        ("chosen_scores", _SCORES),
        ("rejected_scores", _SCORES),
    ]
)


def write(export: Export) -> None:
    """Of the first turn; rows whose candidates all pass, or that have one alone, give none.

    A reverse task's candidates are inputs, not targets, so that its rows give none either.
    """
    write_files(export, SCHEMA, (_tables(export, part) for part in range(export.state.plan.parts)))
    write_card(export)


def _tables(export: Export, part: int) -> Iterator[tuple[Side, pa.Table]]:
    state = export.state
    if not state.done(state.steps["select"], part):
        return
    files = {stage: state.folder.part(stage, part) for stage in READS if stage != "plan"}
    kept = kept_ids(state.folder.part("select", part))
    for table in read_rows(state.folder.plan, part, files, READS, {}, kept, BATCH):
        for row in table.to_pylist():
            pair = _preference(export, row)
            if pair is not None:
                yield side_of(row["caption"], export.test_share), pa.Table.from_pylist([pair], schema=SCHEMA)
        export.done(table.num_rows)


def _preference(export: Export, row: dict[str, Any]) -> dict[str, Any] | None:
    task = export.tasks[row["task"]]
    if task.direction == "reverse":
        return None
    config = export.manifest.section("filter")
    assert isinstance(config, FilterConfig)
    bounds = resolve_bounds(task, config)
    broken = {k: reason for k, s in enumerate(row["scores"]) if (reason := broken_bound(s, bounds))}
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
        "chosen_scores": row["scores"][chosen],
        "rejected_scores": row["scores"][rejected],
        **{name: {"bytes": data, "path": f"{row['id']}-{name}.png"} for name, data in named.items()},
    }
