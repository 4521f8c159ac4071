"""Rows of a run, joined over the files of its stages. All views, audits and studies read rows here."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.manifest import Manifest
from pipeline.store.folder import RunFolder
from pipeline.store.location import Location
from pipeline.store.plan import read_part
from pipeline.store.sealed import opened, read_table
from pipeline.views.run import open_state
from stages.filter.choice import rank
from stages.filter.model import UNCALIBRATED, Models
from stages.filter.stage import FilterConfig, resolve_bounds
from stages.placed import step_name
from stages.score.metrics import scores_of
from stages.tasks import Bounds, Tasks

Reads = Mapping[str, Sequence[str]]
"""Columns by the stage that wrote them, in the order of the stages. ``plan`` can be one of them."""
BEGINS = "source"
"""The stage that begins a later turn. From there on, its rows have their own task and caption."""


def rows(
    run: RunFolder, part: int, reads: Reads, *, turn: int = 1, ids: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part that began a turn, in plan order, each with the columns that it has so far.

    A row has ``id``, the columns in ``reads`` of every stage that received the row, and ``stage``, ``status``
    and ``reason`` of the last of these stages, if any. Files are read one row group at a time, and only row
    groups with wanted rows.

    Args:
        run: the run folder.
        part: the part's number.
        reads: columns by stage. In a later turn, ``plan`` stands for the stage that begins the turn.
        turn: number of the turn in a session, from 1.
        ids: the wanted rows; None for all.

    Raises:
        OSError, DamagedFileError: a file is missing, cannot be read or was changed.
    """
    wanted = _begun(run, part, reads.get("plan", ()), turn)
    if ids is not None:
        named = set(ids)
        wanted = [row for row in wanted if row["id"] in named]
    chosen = pa.array([row["id"] for row in wanted], pa.string())
    streams = {
        stage: records(run.part(step_name(stage, turn), part), ["id", "status", "reason", *columns], chosen)
        for stage, columns in reads.items()
        if stage != "plan"
    }
    heads = {stage: next(stream, None) for stage, stream in streams.items()}
    for row in wanted:
        for stage, stream in streams.items():
            head = heads[stage]
            if head is not None and head["id"] == row["id"]:
                row |= {**head, "stage": stage}
                heads[stage] = next(stream, None)
        yield row


def kept_rows(run: RunFolder, part: int, kept_by: str, reads: Reads) -> Iterator[dict[str, Any]]:
    """The rows of a part that a stage kept in the first turn.

    The stage comes after all others in ``reads``.
    """
    for row in rows(run, part, {**reads, kept_by: reads.get(kept_by, ())}):
        if row.get("stage") == kept_by and row["status"] == "kept":
            yield row


def rows_of_run(folder: str | Location, kept_by: str, reads: Reads) -> Iterator[dict[str, Any]]:
    """The rows of a run that a stage kept in the first turn, in plan order.

    Raises:
        UserError: there is no run, or the stage has not finished it.
    """
    state = open_state(folder)
    for part in range(state.plan.parts):
        if not state.done(state.steps[kept_by], part):
            raise UserError(f"{kept_by} has not finished {state.folder.root}: run generate first")
        yield from kept_rows(state.folder, part, kept_by, reads)


def done_stages(state: RunState, part: int, turn: int) -> list[str]:
    """The stages whose file of a part is up to date in a turn, in order, without publishing stages."""
    return [
        step.stage
        for step in state.steps.values()
        if step.turn == turn and not step.publishes and state.done(step, part)
    ]


def records(path: Location, columns: list[str], ids: pa.Array) -> Iterator[dict[str, Any]]:
    """The records of some rows of a file, in its order. Only row groups that hold such a row are read."""
    with opened(path) as file:
        for group in range(file.num_row_groups):
            wanted = pc.is_in(file.read_row_group(group, columns=["id"])["id"], ids)
            if pc.any(wanted).as_py():
                yield from file.read_row_group(group, columns=columns).filter(wanted).to_pylist()


def _begun(run: RunFolder, part: int, columns: Sequence[str], turn: int) -> list[dict[str, Any]]:
    """The rows that began a turn: all planned rows; in a later turn the rows that the turn before kept."""
    if turn == 1:
        return read_part(run.plan, part, ["id", *columns]).to_pylist()
    path = run.part(step_name(BEGINS, turn), part)
    begun = read_table(path, ["id", "status", *columns])
    return begun.filter(pc.equal(begun["status"], "kept")).drop_columns(["status"]).to_pylist()


def best_candidate(row: Mapping[str, Any], models: Models = UNCALIBRATED) -> int | None:
    """The index of the candidate to show: the filter's choice, otherwise the one with the highest rank.

    None for a row without scored candidates.

    Args:
        row: with its task.
        models: calibrated models by task, which rank the candidates.
    """
    if row.get("choice") is not None:
        return row["choice"]
    scores = scores_of(row)
    model = models.get(row.get("task", ""))
    return max(range(len(scores)), key=lambda place: rank(scores[place], model)) if scores else None


def bounds_of(manifest: Manifest, tasks: Tasks) -> dict[str, dict[str, Bounds]]:
    """The filter's bounds by task and metric, after all overrides of the manifest."""
    config = manifest.section("filter", FilterConfig)
    return {name: resolve_bounds(task, config) for name, task in tasks.items()}


def calibrated(manifest: Manifest) -> Models:
    """The calibrated models of the manifest's filter by task; empty without ``filter.model``."""
    model = manifest.section("filter", FilterConfig).model
    return UNCALIBRATED if model is None else model.tasks
