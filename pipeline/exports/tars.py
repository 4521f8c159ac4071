"""WebDataset: tar files with ``<key>.input.png``, ``.target.png``, ``.mask.png`` and ``.json`` per pair."""

from contextlib import ExitStack

import pyarrow as pa
from webdataset import TarWriter

from pipeline.exports import Export, file_key
from pipeline.exports.card import write_card
from pipeline.exports.names import Writers, numbered
from stages.shards.card import PICTURE

PICTURES = {"I": "input.png", "Tar": "target.png", "mask": "mask.png"}
EXAMPLE = """import glob
import webdataset

files = sorted(glob.glob("{side}-*.tar"))  # in this folder
pairs = webdataset.WebDataset(files, shardshuffle=False).decode("pil")
pair = next(iter(pairs))
print(pair["json"]["T"], pair["input.png"].size, pair["target.png"].size)"""


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
    files = list(export.files())
    named = numbered([export.present(step, unit) for step, unit in files], ".tar")
    for (step, unit), names in zip(files, named, strict=True):
        writers: Writers[TarWriter] = Writers()
        with ExitStack() as open_files:
            for side, name in names.items():
                file = open_files.enter_context(export.folder.file(name))
                writer = TarWriter(file, mtime=0, user="editpairs", group="editpairs")
                writers[side] = open_files.enter_context(writer)
            for side, table in export.tables(step, unit):
                for row in table.to_pylist():
                    pictures = {name: row.pop(column)["bytes"] for column, name in PICTURES.items()}
                    key = f"{file_key(row['id'])}-{row['turn']}"
                    writers[side].write({"__key__": key, **pictures, "json": row})
    texts = {f"json.{name}": column for name, column in export.columns.items() if name not in PICTURES}
    pictures_read = {name: (PICTURE, export.columns[column][1]) for column, name in PICTURES.items()}
    write_card(export, {**pictures_read, **texts}, read_schema(export.schema), EXAMPLE)
