"""Rows of a run, joined over the files of its stages. All views, audits and studies read rows here."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.steps import Step
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
"""The stage that begins a later turn or round. A turn's rows have a task and a caption of their own."""


def rows(
    state: RunState,
    part: int,
    reads: Reads,
    *,
    turn: int = 1,
    ids: Sequence[str] | None = None,
    round: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part that began a turn, in plan order, each with the columns that it has so far.

    A row has ``id``, the columns in ``reads`` of every stage that received the row, and ``stage``, ``step``,
    ``status`` and ``reason`` of the last of these stages, if any. Pruned columns are left out. Files are read
    one row group at a time, and only row groups with wanted rows.

    Args:
        state: the run. A file of the first round must be done if a stage of ``reads`` wrote it.
        part: the part's number.
        reads: columns by stage. In a later turn, ``plan`` stands for the stage that begins the turn.
        turn: number of the turn in a session, from 1.
        ids: the wanted rows; None for all.
        round: only rows that began this round, as it left them; None for every row as its last round left it.

    Raises:
        OSError, DamagedFileError: a file is missing, cannot be read or was changed.
    """
    wanted = _begun(state.folder, part, reads.get("plan", ()), turn)
    if ids is not None:
        named = set(ids)
        wanted = [row for row in wanted if row["id"] in named]
    chosen = pa.array([row["id"] for row in wanted], pa.string())
    repeated = {step.stage for step in state.steps.values() if step.turn == turn and step.round > 1}
    drawn = [name for stage in repeated - {BEGINS} for name in reads.get(stage, ())]
    streams = [
        (step, records(state.path(step, part), _columns(state, step, part, reads), chosen))
        for step in _steps(state, part, reads, turn, repeated)
        if round is None or step.round == round or step.stage not in repeated
    ]
    heads = [next(stream, None) for _, stream in streams]
    for row in wanted:
        last = 1
        for place, (step, stream) in enumerate(streams):
            if (head := heads[place]) is None or head["id"] != row["id"]:
                continue
            if step.round > last:  # nothing of the round before is mixed with this one
                last = step.round
                row = {name: value for name, value in row.items() if name not in drawn}
            row |= {**head, "stage": step.stage, "step": step.name}
            heads[place] = next(stream, None)
        if round is None or last == round:
            yield row


def _steps(state: RunState, part: int, reads: Reads, turn: int, repeated: Set[str]) -> Iterator[Step]:
    """The steps that wrote the columns; of later rounds only done ones, each with the step that begins it."""
    rounds = not repeated.isdisjoint(reads)
    for step in state.steps.values():
        if step.turn == turn and not step.publishes:
            read = step.stage in reads or (step.round > 1 and rounds and step.stage == BEGINS)
            if read and (step.round == 1 or state.done(step, part)):
                yield step


def _columns(state: RunState, step: Step, part: int, reads: Reads) -> list[str]:
    columns = ["id", "status", "reason", *reads.get(step.stage, ())]
    footer = state.footer(step, part)
    if footer is not None and footer.pruned is not None:
        columns = [name for name in columns if name not in footer.pruned.columns]
    if step.round == 1 or step.stage != BEGINS:
        return columns
    with opened(state.path(step, part)) as file:  # it writes a seed, and in the first turn a picture
        known = file.schema_arrow.names
    seed = ["seed"] if "seed" in reads.get("plan", ()) else []
    return [name for name in columns if name in known] + seed


def kept_rows(state: RunState, part: int, kept_by: str, reads: Reads) -> Iterator[dict[str, Any]]:
    """The rows of a part that a stage kept in the first turn.

    The stage comes after all others in ``reads``.
    """
    for row in rows(state, part, {**reads, kept_by: reads.get(kept_by, ())}):
        if row.get("stage") == kept_by and row["status"] == "kept":
            yield row


def rows_of_run(folder: str | Location, kept_by: str, reads: Reads) -> Iterator[dict[str, Any]]:
    """The rows of a run that a stage kept in the first turn, in plan order.

    Raises:
        UserError: there is no run, or the stage has not finished it.
    """
    state = open_state(folder)
    for part in range(state.plan.parts):
        last = [step for step in state.steps.values() if step.turn == 1 and step.stage == kept_by][-1]
        if not state.done(last, part):
            raise UserError(f"{kept_by} has not finished {state.folder.root}: run generate first")
        yield from kept_rows(state, part, kept_by, reads)


def done_stages(state: RunState, part: int, turn: int) -> list[str]:
    """The stages whose file of a part is up to date in a turn, in order, without publishing stages.

    Of stages that are repeated in rounds, the first round counts.
    """
    return [
        step.stage
        for step in state.steps.values()
        if (step.turn, step.round) == (turn, 1) and not step.publishes and state.done(step, part)
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
