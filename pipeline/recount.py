"""Whether the files of a run hold what their footers say: read whole, checked, and counted anew."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipeline.counts import Counts
from pipeline.parts import Footer
from pipeline.plan import PLACE, read_part
from pipeline.rows import kept_ids
from pipeline.sealed import DamagedFileError, check_digest, read_table
from pipeline.state import RunState
from pipeline.steps import Step


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: the name of the check, whether it is fine, and where."""

    check: str
    fine: bool
    where: str


def recount(state: RunState) -> Iterator[Finding]:
    """Every file of a run, in order.

    Raises:
        OSError: a file that is there cannot be read.
    """
    plan = _whole(state.folder.plan.name, lambda: check_digest(state.folder.plan, PLACE))
    yield plan
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


def _whole(where: str, check: Callable[[], object]) -> Finding:
    try:
        check()
    except FileNotFoundError:
        return Finding("part", False, f"{where} is not there")
    except DamagedFileError as error:
        return Finding("part", False, f"{where}: {error.why}")
    return Finding("part", True, where)


def _counted(state: RunState, step: Step, unit: int, footer: Footer, where: str) -> Iterator[Finding]:
    """Whether a file's rows are those it was given, and add up to its footer."""
    published = step.parts_per_unit is not None
    table = read_table(state.path(step, unit), ["id"] if published else ["id", "status", "reason"])
    tasks: dict[str, str] = {}
    given: list[str] = []
    for part in state.readable(step, unit):
        planned = read_part(state.folder.plan, part, ["id", "task"])
        tasks |= zip(*(planned[name].to_pylist() for name in ("id", "task")), strict=True)
        given += _given(state, step, part).to_pylist()
    ids = table["id"].to_pylist()
    yield Finding("given", ids == given, where)
    records = table.to_pylist()
    counts: Counts = Counter(
        (tasks.get(row["id"], "?"), row.get("status", "kept"), row.get("reason", "")) for row in records
    )
    yield Finding("recount", counts == footer.counts, where)


def _given(state: RunState, step: Step, part: int) -> pa.Array:
    if step.previous is None:
        return read_part(state.folder.plan, part, ["id"])["id"]
    return kept_ids(state.folder.part(step.previous, part))
