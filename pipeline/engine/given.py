"""The rows that a step is given, with the columns it reads: usually the rows that the step before kept."""

import json
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.inputs.pictures import PLANNED, Pictures
from pipeline.manifest.steps import Step
from pipeline.store.folder import RunFolder
from pipeline.store.plan import read_part
from pipeline.store.rows import kept_ids, read_rows
from pipeline.store.sealed import read_table
from stages.base import PICTURES
from stages.placed import Given, PlacedStage


def given_ids(folder: RunFolder, step: Step, part: int) -> pa.Array:
    """The ids of the rows of a part that a step is given, in plan order.

    Raises:
        OSError, DamagedFileError: a file is missing, cannot be read, or was changed.
    """
    if not step.given and step.previous is not None:
        return kept_ids(folder.part(step.previous, part))
    planned = read_part(folder.plan, part, ["id"])["id"].combine_chunks()
    if not step.rows_of:
        return planned
    given = pa.concat_arrays([_ids_of(folder, given, part) for given in step.rows_of])
    return planned.filter(pc.is_in(planned, given))


def given_rows(
    folder: RunFolder,
    step: Step,
    placed: PlacedStage,
    part: int,
    ids: pa.Array,
    batch: int,
    models: Mapping[str, str],
    pictures: Pictures | None = None,
) -> Iterator[pa.Table]:
    """Yield the given rows with the columns that the step reads, in tables of at most ``batch`` rows.

    Args:
        folder: the run folder.
        step, placed: the step, and its stage.
        part: the part's number.
        ids: rows that the step is given, in plan order.
        batch: rows per table.
        models: the run's models by manifest key.
        pictures: of the captions, for a stage that reads them.

    Raises:
        OSError, DamagedFileError: a file is missing, cannot be read, or was changed.
        UserError: a picture is there and cannot be read.
    """
    files = {name: folder.part(name, part) for name in step.inputs}
    later = {each.step: (each.columns, each.steps) for each in placed.later}
    run = {"models": json.dumps(dict(models))}
    reads = {name: list(columns) for name, columns in placed.reads.items() if name != PICTURES}
    if PICTURES not in placed.reads or pictures is None:
        return read_rows(folder.plan, part, files, reads, run, ids, batch, later)
    reads["plan"] = [*reads.get("plan", []), *PLANNED]
    return map(pictures.read, read_rows(folder.plan, part, files, reads, run, ids, batch, later))


def _ids_of(folder: RunFolder, given: Given, part: int) -> pa.Array:
    table = read_table(folder.part(given.step, part), ["id", "status", "reason"])
    chosen = pc.equal(table["status"], given.status)
    if given.final:
        chosen = pc.and_(chosen, pc.invert(pc.is_in(table["reason"], pa.array(given.final))))
    return table.filter(chosen)["id"].combine_chunks()
