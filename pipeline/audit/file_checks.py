"""Check that the files of a run are intact: read each file whole, verify checksums, recount rows."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.engine.given import given_ids
from pipeline.engine.publish import CARD, CHECKSUMS
from pipeline.engine.state import RunState
from pipeline.manifest.steps import Step
from pipeline.store import events
from pipeline.store.counts import Counts
from pipeline.store.location import Location, exists, list_folder
from pipeline.store.parts import Footer
from pipeline.store.plan import PLACE, read_part
from pipeline.store.sealed import DamagedFileError, check_digest, read_table
from pipeline.verdicts.book import Book

_SUM = re.compile("([0-9a-f]{64})  (.+)")


@dataclass(frozen=True)
class Finding:
    """Result of one check: its name, whether it passed, and where."""

    check: str
    fine: bool
    where: str


def recount(state: RunState) -> Iterator[Finding]:
    """Check every file of a run, in order.

    Raises:
        OSError: an existing file cannot be read.
    """
    damaged = events.count_damaged(state.folder.events)
    yield Finding("event", not damaged, f"{damaged} lines of {state.folder.events.name}")
    plan = _whole(state.folder.plan.name, lambda: check_digest(state.folder.plan, PLACE))
    yield plan
    book = Book(state.folder, state.plan.digest)
    if exists(book.path):
        yield _whole(book.path.name, lambda: check_digest(book.path, book.place))
    for step in state.steps.values():
        for unit in range(step.unit_count(state.plan.parts)):
            path = state.path(step, unit)
            where = f"{step.name}/{path.name}"
            yield Finding("unfinished", state.done(step, unit), where)
            footer = state.footer(step, unit)
            if (error := state.damaged.get((step.name, unit))) is not None:
                yield Finding("part", False, f"{where}: {error.why}")
            if footer is None:
                continue
            found = _whole(where, lambda: check_digest(path, state.place(step, unit)))  # noqa: B023
            yield found
            if plan.fine and found.fine and state.done(step, unit):
                yield from _counted(state, step, unit, footer, where)


def check_checksums(shards: Location, of_run: bool) -> Iterator[Finding]:
    """Check each shard's own checksums and ``SHA256SUMS`` in the parent folder; a run must have that file.

    Raises:
        OSError: an existing file cannot be read.
    """
    sums = {}
    for name in sorted(list_folder(shards)):
        if name.startswith("train-") and name.endswith(".parquet"):
            try:
                sums[f"{shards.name}/{name}"] = check_digest(shards / name, None)
            except DamagedFileError as error:
                yield Finding("checksum", False, f"{name}: {error.why}")
    try:
        text = (shards.parent / CHECKSUMS).read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        if of_run and sums:
            yield Finding("checksum", False, f"{CHECKSUMS} is not there")
        return
    listed = {}
    for line in text.split("\n"):
        if match := _SUM.fullmatch(line):
            listed[match[2]] = match[1]
        elif line:
            yield Finding("checksum", False, f"{CHECKSUMS} has the line {line[:80]!r}")
    if of_run:
        sums[CARD] = _sha256(shards.parent / CARD)
    for name in sorted({*sums, *(name for name in listed if name.startswith(f"{shards.name}/"))}):
        yield Finding("checksum", name in sums and sums[name] == listed.get(name), name)


def _sha256(path: Location) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _whole(where: str, check: Callable[[], object]) -> Finding:
    try:
        check()
    except FileNotFoundError:
        return Finding("part", False, f"{where} is not there")
    except DamagedFileError as error:
        return Finding("part", False, f"{where}: {error.why}")
    return Finding("part", True, where)


def _counted(state: RunState, step: Step, unit: int, footer: Footer, where: str) -> Iterator[Finding]:
    """Check that a file holds the rows it was given, and that its footer counts them correctly."""
    published = step.publishes
    table = read_table(state.path(step, unit), ["id"] if published else ["id", "status", "reason"])
    tasks: dict[str, str] = {}
    given: list[str] = []
    for part in state.readable(step, unit):
        planned = read_part(state.folder.plan, part, ["id", "task"])
        tasks |= zip(*(planned[name].to_pylist() for name in ("id", "task")), strict=True)
        given += given_ids(state.folder, step, part).to_pylist()
    ids = table["id"].to_pylist()
    yield Finding("given", ids == given, where)
    records = table.to_pylist()
    counts: Counts = Counter(
        (tasks.get(row["id"], "?"), row.get("status", "kept"), row.get("reason", "")) for row in records
    )
    yield Finding("recount", counts == footer.counts, where)
