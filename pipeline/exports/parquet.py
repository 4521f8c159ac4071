"""Parquet files for ``datasets.load_dataset(folder)``, split into train and test."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports import Export, Side
from pipeline.exports.card import example, write_card
from pipeline.exports.names import Writers, numbered
from pipeline.manifest.steps import Step
from stages.shards.columns import huggingface_metadata

GROUP_ROWS = 1000
"""Most rows in a row group."""
GROUP_BYTES = 64 * 2**20
"""Most uncompressed bytes in a row group, unless a single row is larger."""


def write(export: Export) -> None:
    """Write the published columns unchanged."""
    write_sides(export, export.schema, lambda table: table.select(export.schema.names))
    write_card(export, export.columns, export.schema, example("T", "I", "Tar"))


def write_sides(export: Export, schema: pa.Schema, convert: Callable[[pa.Table], pa.Table]) -> None:
    """Convert each table and write one file per published file and side."""

    def tables(step: Step, unit: int) -> Iterator[tuple[Side, pa.Table]]:
        for side, table in export.tables(step, unit):
            yield side, convert(table)

    files = list(export.files())
    sides = [export.present(step, unit) for step, unit in files]
    write_files(export, schema, sides, (tables(step, unit) for step, unit in files))


def write_files(
    export: Export,
    schema: pa.Schema,
    sides: Sequence[Sequence[Side]],
    files: Iterable[Iterator[tuple[Side, pa.Table]]],
) -> None:
    """Write tables that are already converted, as ``data/train-00000-of-00002.parquet`` and so on.

    Args:
        sides: the sides that have rows, for each of ``files``. A file that would be empty is not written.
    """
    described = schema.with_metadata(huggingface_metadata(schema))
    for names, tables in zip(numbered(sides, ".parquet"), files, strict=True):
        with ExitStack() as open_files:
            writers: Writers[RowGroups] = Writers()
            for side, name in names.items():
                file = open_files.enter_context(_parquet(export, f"data/{name}", described))
                writers[side] = RowGroups(file)
            for side, table in tables:
                writers[side].write(table.cast(described))
            for writer in writers.values():
                writer.flush()


@contextmanager
def _parquet(export: Export, name: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A parquet file as the Hub wants it.

    With the page index, a reader finds the pages of some rows without reading the others. Pages are cut where
    the content says so: after a change of some rows, the other pages have the bytes that they had, and are
    not stored or sent again. Pictures have no dictionary, which such a change would rewrite.
    """
    text = [field.name for field in schema if pa.types.is_string(field.type)]
    with (
        export.folder.file(name) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=text,
            write_page_index=True,
            use_content_defined_chunking=True,
        ) as writer,
    ):
        yield writer


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
