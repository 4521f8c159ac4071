"""``editpairs validate``: check every byte, row and count of a run, or of shards without their run.

Every file is read once. In a run, the parts are checked too: their bytes must match their checksums, and each
published pair must be the pair that the edit stage drew and the filter chose. Shards without their run get
only the checks that need no other file.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.audit.file_checks import check_checksums, recount
from pipeline.engine.ledger import count_run
from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.lockfile import locked_tasks
from pipeline.manifest.steps import Step
from pipeline.shown import DataTable
from pipeline.store.location import Location, list_folder
from pipeline.store.reading import open_parquet
from pipeline.views.rows import rows
from stages.pair import as_pair
from stages.pictures.png import decode_grey, decode_rgb
from stages.shards.columns import CHOICES, SCHEMA, columns_of, schema_of
from stages.tasks import Tasks

CHECKS = {
    "checksum": "shards and card are those of SHA256SUMS, and every one is listed",
    "part": "parts and shards are in their places, and hold the bytes that were committed (runs only)",
    "given": "a file's rows are the rows that it was given (runs only)",
    "recount": "a file's rows add up to what its footer says (runs only)",
    "event": "the lines of events.jsonl are as they were written (runs only)",
    "schema": "every shard has the published columns and types",
    "row id": "no row is published twice",
    "picture": "I, Tar and mask can be decoded and have one size",
    "identical": "I and Tar differ",
    "swapped": "I and Tar are the pictures that were drawn, and not exchanged (runs only)",
    "text": "instruction and both captions are there",
    "task": "TI is known, and one task has one TI",
    "score": "no score is NaN",
    "count": "as many rows are published as the ledger says (runs only)",
    "unfinished": "nothing is pending or stale (runs only)",
}
"""The checks, in the order of the table."""
_ROWS = 64
_SHARD = pa.schema([pa.field("id", pa.string()), *SCHEMA])
_SCHEMAS = [pa.schema([pa.field("id", pa.string()), *schema_of(columns_of(stages))]) for stages in CHOICES]
"""The schema of a shard for each choice of optional stages."""
DRAWN = {"plan": ["task"], "edit": ["anchor", "candidates"], "filter": ["choice"]}


@dataclass
class Findings:
    """Failures by check: how many, and the first few places."""

    checked: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def see(self, check: str, fine: bool, where: str) -> None:
        self.checked[check] += 1
        if not fine:
            self.wrong[check].append(where)

    def table(self) -> DataTable:
        table = DataTable("check", "looked at", "wrong", "first", "meaning")
        for check, meaning in CHECKS.items():
            wrong = self.wrong.get(check, [])
            style = "bold red" if wrong else None
            shown = "; ".join(wrong[:2])
            table.add_row(check, str(self.checked[check]), str(len(wrong)), shown, meaning, style=style)
        return table


def validate(shards: Location, state: RunState | None) -> Findings:
    """Check a folder of shards; with ``state``, also the run (the turn that the folder belongs to).

    Raises:
        OSError: an existing file cannot be read.
    """
    findings = Findings()
    names = sorted(list_folder(shards))
    files = [shards / name for name in names if name.startswith("train-") and name.endswith(".parquet")]
    for found in [*check_checksums(shards, state is not None), *(recount(state) if state else [])]:
        findings.see(found.check, found.fine, found.where)
    drawn = None
    known: Mapping[str, int] | None = None
    if state is not None:
        tasks = locked_tasks(state.folder.lock)
        known = {name: task.index for name, task in tasks.items()}
        drawn = _Drawn(state, tasks, state.steps[shards.name])
    seen: set[str] = set()
    indices: dict[str, int] = dict(known or {})
    published = 0
    for path in files:
        if drawn is not None:
            drawn.begin(path.name)
        for row in _rows(path, findings):
            published += 1
            findings.see("row id", row["id"] not in seen, row["id"])
            seen.add(row["id"])
            _check_row(row, indices, known is not None, findings)
            if drawn is not None:
                drawn.check(row, findings)
    if state is not None:
        (kept,) = (count.kept.total() for count in count_run(state) if count.name == shards.name)
        findings.see("count", published == kept, f"{published} published, {kept} in the ledger")
    return findings


def _rows(path: Location, findings: Findings) -> Iterator[dict[str, Any]]:
    """Yield the rows of a shard, if the shard has the published schema."""
    try:
        with open_parquet(path, _SHARD) as file:
            fine = dict(_types(file.schema_arrow)) in [dict(_types(schema)) for schema in _SCHEMAS]
            findings.see("schema", fine, path.name)
            if fine:
                for batch in file.iter_batches(batch_size=_ROWS):
                    yield from batch.to_pylist()
    except UserError as error:
        findings.see("schema", False, str(error))


def _types(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    return ((field.name, field.type) for field in schema)


def _check_row(row: Mapping[str, Any], indices: dict[str, int], closed: bool, findings: Findings) -> None:
    where = row["id"]
    texts = [row["T"], row["input_caption"], row["output_caption"]]
    findings.see("text", all(text and text.strip() for text in texts), where)
    if closed:
        known = indices.get(row["task"]) == row["TI"]
    else:
        known = row["TI"] is not None and indices.setdefault(row["task"], row["TI"]) == row["TI"]
    findings.see("task", known, f"{where}: {row['task']} with TI {row['TI']}")
    scores = [value for value in row.values() if isinstance(value, float)]
    findings.see("score", not any(np.isnan(scores)), where)
    try:
        i, tar = decode_rgb(row["I"]["bytes"]), decode_rgb(row["Tar"]["bytes"])
        mask = decode_grey(row["mask"]["bytes"])
    except (ValueError, TypeError):
        findings.see("picture", False, where)
        return
    findings.see("picture", i.shape == tar.shape and mask.shape == i.shape[:2], where)
    findings.see("identical", i.shape != tar.shape or bool((i != tar).any()), where)


class _Drawn:
    """The pictures drawn by the edit stage for one shard: read part by part, and dropped with the shard.

    A row that the shard should not hold is therefore not looked for in the whole run.
    """

    def __init__(self, state: RunState, tasks: Tasks, step: Step) -> None:
        self._state, self._tasks, self._turn = state, tasks, step.turn
        total = state.plan.parts
        units = range(step.unit_count(total))
        self._parts_of = {state.path(step, unit).name: step.parts(unit, total) for unit in units}
        self.begin("")

    def begin(self, name: str) -> None:
        """Turn to another shard. One with a name that the run does not use should hold no row."""
        self._parts = iter(self._parts_of.get(name, range(0)))
        self._pairs: dict[str, tuple[bytes, bytes]] = {}

    def check(self, row: Mapping[str, Any], findings: Findings) -> None:
        while row["id"] not in self._pairs and (part := next(self._parts, None)) is not None:
            self._pairs |= self._read(part)
        published = (row["I"]["bytes"], row["Tar"]["bytes"])
        findings.see("swapped", self._pairs.pop(row["id"], None) == published, row["id"])

    def _read(self, part: int) -> dict[str, tuple[bytes, bytes]]:
        pairs = {}
        try:
            for row in rows(self._state, part, DRAWN, turn=self._turn):
                if row.get("stage") == "filter" and row["status"] == "kept":
                    chosen = row["candidates"][row["choice"]]["image"]
                    pair = as_pair(self._tasks[row["task"]], row["anchor"], chosen, "", "")
                    pairs[row["id"]] = (pair.input, pair.target)
        except UserError:  # ``recount`` reports it
            return {}
        return pairs
