"""WebDataset: tar files of ``<key>.input.png``, ``.target.png``, ``.mask.png`` and ``.json`` a pair."""

from contextlib import ExitStack

from webdataset import TarWriter

from pipeline.exports import Export, Side
from pipeline.exports.card import write_card

PICTURES = {"I": "input.png", "Tar": "target.png", "mask": "mask.png"}


def write(export: Export) -> None:
    """One tar a published file and side; the key is ``<id>-<turn>``."""
    for number, (step, unit) in enumerate(export.files()):
        writers: dict[Side, TarWriter] = {}
        with ExitStack() as open_files:
            for side, table in export.tables(step, unit):
                if side not in writers:
                    path = export.folder / f"{side}-{number:05d}.tar"
                    writer = TarWriter(str(path), mtime=0, user="editpairs", group="editpairs")
                    writers[side] = open_files.enter_context(writer)
                for row in table.to_pylist():
                    pictures = {name: row.pop(column)["bytes"] for column, name in PICTURES.items()}
                    writers[side].write({"__key__": f"{row['id']}-{row['turn']}", **pictures, "json": row})
    write_card(export)
