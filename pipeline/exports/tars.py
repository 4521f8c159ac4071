"""WebDataset: tar files with ``<key>.input.png``, ``.target.png``, ``.mask.png`` and ``.json`` per pair."""

from contextlib import ExitStack

import pyarrow as pa
from webdataset import TarWriter

from pipeline.exports import Export, Side, file_key
from pipeline.exports.card import write_card
from stages.shards.card import PICTURE

PICTURES = {"I": "input.png", "Tar": "target.png", "mask": "mask.png"}


def read_schema(published: pa.Schema) -> pa.Schema:
    """Schema of a sample for ``datasets``, written into the card.

    Without it, ``datasets`` guesses types from the first few rows, and guesses wrongly for a column that is
    null there.
    """
    texts = pa.struct([field for field in published if field.name not in PICTURES])
    pictures = [(name, PICTURE) for name in PICTURES.values()]
    return pa.schema([*pictures, ("json", texts), ("__key__", pa.string()), ("__url__", pa.string())])


def write(export: Export) -> None:
    """Write one tar per published file and side. A sample's key is ``<id>-<turn>``."""
    for number, (step, unit) in enumerate(export.files()):
        writers: dict[Side, TarWriter] = {}
        with ExitStack() as open_files:
            for side, table in export.tables(step, unit):
                if side not in writers:
                    file = open_files.enter_context(export.folder.file(f"{side}-{number:05d}.tar"))
                    writer = TarWriter(file, mtime=0, user="editpairs", group="editpairs")
                    writers[side] = open_files.enter_context(writer)
                for row in table.to_pylist():
                    pictures = {name: row.pop(column)["bytes"] for column, name in PICTURES.items()}
                    key = f"{file_key(row['id'])}-{row['turn']}"
                    writers[side].write({"__key__": key, **pictures, "json": row})
    texts = {f"json.{name}": column for name, column in export.columns.items() if name not in PICTURES}
    pictures_read = {name: (PICTURE, export.columns[column][1]) for column, name in PICTURES.items()}
    write_card(export, {**pictures_read, **texts}, read_schema(export.schema))
