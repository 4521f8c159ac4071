"""MagicBrush's columns (Zhang et al. 2023), for training code written for that data set.

MagicBrush's masks are pictures with the edited region cut out. Ours are grey: the level of a pixel says how
freely it could change.
"""

import pyarrow as pa

from pipeline.exports import Export
from pipeline.exports.card import example, write_card
from pipeline.exports.parquet import write_sides
from stages.shards.card import PICTURE
from stages.shards.columns import COLUMNS

NAMES = {
    "img_id": "id",
    "turn_index": "turn",
    "source_img": "I",
    "mask_img": "mask",
    "instruction": "T",
    "target_img": "Tar",
}
SCHEMA = pa.schema(
    [
        ("img_id", pa.string()),
        ("turn_index", pa.int32()),
        ("source_img", PICTURE),
        ("mask_img", PICTURE),
        ("instruction", pa.string()),
        ("target_img", PICTURE),
    ]
)


def write(export: Export) -> None:
    write_sides(export, SCHEMA, _converted)
    columns = {name: (SCHEMA.field(name).type, COLUMNS[ours][1]) for name, ours in NAMES.items()}
    write_card(export, columns, SCHEMA, example("instruction", "source_img", "target_img"))


def _converted(table: pa.Table) -> pa.Table:
    return table.select(list(NAMES.values())).rename_columns(list(NAMES)).cast(SCHEMA)
