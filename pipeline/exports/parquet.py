"""Parquet files for ``datasets.load_dataset(folder)``, split into train and test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports import Export, Side
from pipeline.exports.card import write_card
from pipeline.manifest.steps import Step
from stages.shards.columns import huggingface_metadata

GROUP_ROWS = 1000
"""Most rows in a row group."""
GROUP_BYTES = 64 * 2**20
"""Most uncompressed bytes in a row group, unless a single row is larger."""


def write(export: Export) -> None:
    """Write the published columns unchanged."""
    write_sides(export, export.schema, lambda table: table.select(export.schema.names))
    write_card(export, export.columns)


def write_sides(export: Export, schema: pa.Schema, convert: Callable[[pa.Table], pa.Table]) -> None:
    """Convert each table and write ``data/<side>-<number>.parquet``, one per published file and side."""

    def tables(step: Step, unit: int) -> Iterator[tuple[Side, pa.Table]]:
        for side, table in export.tables(step, unit):
            yield side, convert(table)

    write_files(export, schema, (tables(step, unit) for step, unit in export.files()))


def write_files(export: Export, schema: pa.Schema, files: Iterator[Iterator[tuple[Side, pa.Table]]]) -> None:
    """Write tables that are already converted. A file that would be empty is not written."""
    described = schema.with_metadata(huggingface_metadata(schema))
    for number, tables in enumerate(files):
        writers: dict[Side, RowGroups] = {}
        with ExitStack() as open_files:
            for side, table in tables:
                if side not in writers:
                    file = open_files.enter_context(export.folder.file(f"data/{side}-{number:05d}.parquet"))
                    parquet = pq.ParquetWriter(file, described, compression="zstd")
                    writers[side] = RowGroups(open_files.enter_context(parquet))
                writers[side].write(table.cast(described))
            for writer in writers.values():
                writer.flush()


class RowGroups:
    """Collects rows into row groups of at most ``GROUP_ROWS`` rows and ``GROUP_BYTES`` bytes."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0

    def write(self, table: pa.Table) -> None:
        if table.num_rows > 1 and (table.num_rows > GROUP_ROWS or table.nbytes > GROUP_BYTES):
            middle = table.num_rows // 2
            self.write(table.slice(0, middle))
            self.write(table.slice(middle))
            return
        if self._rows + table.num_rows > GROUP_ROWS or self._bytes + table.nbytes > GROUP_BYTES:
            self.flush()
        self._waiting.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes

    def flush(self) -> None:
        """Write the rows collected so far."""
        if self._rows:
            self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting, self._rows, self._bytes = [], 0, 0
