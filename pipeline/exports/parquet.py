"""Parquet files that ``datasets.load_dataset(folder)`` reads as they are, split into train and test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports import Export, Side
from pipeline.exports.card import write_card
from pipeline.steps import Step
from stages.shards import SCHEMA, huggingface_metadata


def write(export: Export) -> None:
    """The published columns, unchanged."""
    schema = pa.schema([pa.field("id", pa.string()), *SCHEMA])
    write_sides(export, schema, lambda table: table.select(schema.names))
    write_card(export)


def write_sides(export: Export, schema: pa.Schema, convert: Callable[[pa.Table], pa.Table]) -> None:
    """``data/<side>-<number>.parquet``, one a published file and side, of what ``convert`` makes of it."""

    def tables(step: Step, unit: int) -> Iterator[tuple[Side, pa.Table]]:
        for side, table in export.tables(step, unit):
            yield side, convert(table)

    write_files(export, schema, (tables(step, unit) for step, unit in export.files()))


def write_files(export: Export, schema: pa.Schema, files: Iterator[Iterator[tuple[Side, pa.Table]]]) -> None:
    """The same of tables that are already converted; a file that would be empty is not written."""
    folder = export.folder / "data"
    folder.mkdir()
    described = schema.with_metadata(huggingface_metadata(schema))
    for number, tables in enumerate(files):
        writers: dict[Side, pq.ParquetWriter] = {}
        with ExitStack() as open_files:
            for side, table in tables:
                if side not in writers:
                    path = folder / f"{side}-{number:05d}.parquet"
                    writers[side] = open_files.enter_context(
                        pq.ParquetWriter(path, described, compression="zstd")
                    )
                writers[side].write_table(table.cast(described))
