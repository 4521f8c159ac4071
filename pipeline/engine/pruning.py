"""``editpairs prune``: drop the pictures that filtering again does not need.

Filtering again runs the light stages and everything that depends on them. Dropped are the binary columns
that none of these steps reads. A pruned file keeps its name, its other columns, its fingerprint, its inputs
and its counts, and says in its footer what it has lost and which digest it had. So it stays done, and so do
the files made from it. A file is replaced as a whole: a killed ``prune`` leaves some files whole and some
pruned.

If a step has work to do that reads a dropped column, the engine makes the pruned file again first
(:func:`lacking`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine.state import RunState
from pipeline.manifest.steps import Step
from pipeline.store.lock import Check
from pipeline.store.parts import Pruned, pruned_content
from pipeline.store.sealed import check_digest, opened, read_metadata
from pipeline.store.sealed_writer import SealedWriter
from stages.base import OUTSIDE
from stages.placed import Chain, PlacedStage


@dataclass(frozen=True)
class Prunable:
    """A file that can lose columns."""

    step: str
    unit: int
    rows: int
    columns: tuple[str, ...]
    size: int
    """Bytes that the columns take in the file."""


def columns_read(placed: PlacedStage) -> dict[str, set[str]]:
    """The columns that a step reads of other steps, by step; those that later rounds wrote again too."""
    reads = {name: set(columns) for name, columns in placed.reads.items() if name not in OUTSIDE}
    for later in placed.later:
        for step in later.steps:
            reads.setdefault(step, set()).update(later.columns)
    return reads


def droppable(steps: Iterable[Step], stages: Chain) -> dict[str, tuple[str, ...]]:
    """The columns that filtering again does not need, by step; steps without one are left out."""
    remade: set[str] = set()
    for step in steps:
        if step.light or remade.intersection(step.inputs):
            remade.add(step.name)
    needed: dict[str, set[str]] = {}
    for name in remade:
        for step_read, columns in columns_read(stages[name]).items():
            needed.setdefault(step_read, set()).update(columns)
    found = {}
    for name, placed in stages.items():
        pictures = [field.name for field in placed.stage.schema if name not in remade and _binary(field.type)]
        if unneeded := tuple(column for column in pictures if column not in needed.get(name, ())):
            found[name] = unneeded
    return found


def _binary(kind: pa.DataType) -> bool:
    """Whether values are bytes, or contain bytes: pictures. Texts and numbers are small, and stay."""
    inner = [kind.field(place).type for place in range(kind.num_fields)]
    return pa.types.is_binary(kind) or any(map(_binary, inner))


def prunable(state: RunState, stages: Chain) -> Iterator[Prunable]:
    """The files that can lose columns now.

    A file stays whole as long as one of the steps that read these columns has not finished its part.

    Raises:
        OSError, DamagedFileError: a file cannot be read.
    """
    for name, columns in droppable(state.steps.values(), stages).items():
        step = state.steps[name]
        readers = [
            state.steps[other]
            for other, placed in stages.items()
            if columns_read(placed).get(name, set()).intersection(columns)
        ]
        for unit in range(step.unit_count(state.plan.parts)):
            footer = state.footer(step, unit)
            if footer is None or footer.pruned or not state.done(step, unit):
                continue
            if all(state.done(reader, unit) for reader in readers):
                _, metadata = read_metadata(state.path(step, unit), state.place(step, unit))
                if size := _size_of(metadata, columns):
                    yield Prunable(name, unit, metadata.num_rows, columns, size)


def _size_of(metadata: pq.FileMetaData, columns: Sequence[str]) -> int:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    return sum(
        chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns
    )


def prune(state: RunState, stages: Chain, files: Iterable[Prunable], check: Check) -> Iterator[Prunable]:
    """Drop the columns, file by file. Yields each file after it was replaced.

    Args:
        check: raises if this process no longer holds the run's lock.

    Raises:
        OSError: a file cannot be read or written.
        DamagedFileError: a file is not what was committed. It stays as it is.
    """
    for each in files:
        step = state.steps[each.step]
        path, place = state.path(step, each.unit), state.place(step, each.unit)
        check_digest(path, place)  # damage is not made to look sound
        content, _ = read_metadata(path, place)
        with opened(path) as file:
            left = [name for name in file.schema_arrow.names if name not in each.columns]
            metadata = dict(stages[each.step].stage.schema_metadata) or None
            schema = pa.schema([file.schema_arrow.field(name) for name in left], metadata)
            with SealedWriter(path, schema) as writer:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=left)
                    writer.write(table.select(left).replace_schema_metadata(metadata))
                check()
                writer.commit(place, pruned_content(content, Pruned(each.columns, each.size)))
        state.refresh(step, each.unit)
        yield each


def lacking(state: RunState, placed: PlacedStage, part: int) -> dict[str, tuple[str, ...]]:
    """The columns that a step reads of a part and that were pruned, by the step that wrote them."""
    found = {}
    for name, columns in columns_read(placed).items():
        footer = state.footer(state.steps[name], part)
        if footer is not None and footer.pruned is not None:
            found[name] = tuple(column for column in footer.pruned.columns if column in columns)
    return {name: columns for name, columns in found.items() if columns}
