"""The published columns: their types and meanings, and their schema for Arrow and for ``datasets``."""

import json
from collections.abc import Collection, Mapping
from itertools import combinations
from typing import Any

import pyarrow as pa

from stages.score.metrics import FURTHER, JUDGED, MEASURED
from stages.shards.card import PICTURE, Columns

COLUMNS: Columns = {
    "id": (pa.string(), "name of the row, unique within a turn"),
    "I": (PICTURE, "input image (PNG)"),
    "T": (pa.string(), "edit instruction"),
    "Tar": (PICTURE, "target image (PNG)"),
    "TI": (pa.int16(), "task index"),
    "T_inverse": (
        pa.string(),
        "edit instruction from Tar back to I; null if it makes no sense, the task was moved, or the pair "
        "backwards was rejected",
    ),
    "TI_inverse": (pa.int16(), "task index of the pair backwards"),
    "T_inverse_rejected": (pa.string(), "why the filter rejected the pair backwards; null otherwise"),
    "mask": (PICTURE, "how freely each pixel could change (8-bit grey PNG, 255 = fully)"),
    "task": (pa.string(), "name of the task"),
    "task_planned": (pa.string(), "the task that the pair was made for, before the task check"),
    "input_caption": (pa.string(), "describes I"),
    "output_caption": (pa.string(), "describes Tar"),
    "edited_object": (pa.string(), "the new object, in the words of the output caption"),
    "original_object": (pa.string(), "the replaced object, in the words of the input caption"),
    "boxes": (pa.list_(pa.list_(pa.float32())), "boxes of the object: x0, y0, x1, y1 in pixels"),
    "method": (pa.string(), "how the target was made"),
    "mask_policy": (pa.string(), "mask that guided the edit: soft, precise, smooth, box or none"),
    "self_until": (pa.float32(), "fraction of the steps with the source's self-attention"),
    "cross_until": (pa.float32(), "fraction of the steps with the source's cross-attention"),
    "guidance": (pa.float32(), "classifier-free guidance scale of the edit"),
    "seed": (pa.int64(), "the row's random seed"),
    **{name: (pa.float32(), f"score: {metric.meaning}") for name, metric in MEASURED.items()},
    "models": (pa.string(), "JSON: each model's hub name and revision, or the hash of its files"),
    "thresholded": (pa.bool_(), "whether unchanged pixels of Tar were replaced by those of I"),
    "session": (pa.string(), "the same in all turns of a session; a later turn's I is the Tar before it"),
    "turn": (pa.int16(), "number of the turn in its session, from 1"),
}
"""Type and meaning of every published column, in a run without optional stages."""

FURTHER_COLUMNS: Columns = {
    name: (pa.float32(), f"score: {metric.meaning}") for name, metric in FURTHER.items()
}
"""The further columns in a run with the measure stage."""

JUDGE_COLUMNS: Columns = {
    **{name: (pa.float32(), f"score: {metric.meaning}") for name, metric in JUDGED.items()},
    "judge_reason": (pa.string(), "why the judge gave these marks, in its own words"),
    "instruction_origin": (pa.string(), "who wrote T: instruct, or the judge for a pair of another edit"),
    "T_asked": (pa.string(), "the instruction that the pair was drawn for, where T is another one"),
}
"""The further columns in a run with a judge."""

DESCRIBE_COLUMNS: Columns = {
    "caption_origin": (pa.string(), "who wrote the input's caption: captions (the file), or describe"),
}
"""The further column in a run whose pictures are described."""

KEPT = "captions.keep"
"""Among a run's stages, it says that other columns of the captions travel to the published rows."""
KEPT_COLUMNS: Columns = {
    "kept_columns": (pa.string(), "JSON: other columns of the caption's file, such as url and licence")
}


OTHER_COLUMNS: Mapping[str, Columns] = {
    "describe": DESCRIBE_COLUMNS,
    "measure": FURTHER_COLUMNS,
    "judge": JUDGE_COLUMNS,
    KEPT: KEPT_COLUMNS,
}
"""The further columns by optional stage, and by another option of a run."""
CHOICES = tuple(
    choice for count in range(len(OTHER_COLUMNS) + 1) for choice in combinations(OTHER_COLUMNS, count)
)
"""Every choice of them that a run can have."""


def columns_of(stages: Collection[str]) -> Columns:
    """Type and meaning of every column that a run of these stages publishes."""
    columns = dict(COLUMNS)
    for stage, others in OTHER_COLUMNS.items():
        if stage in stages:
            columns |= others
    return columns


def schema_of(columns: Columns) -> pa.Schema:
    """The schema of published rows, without ``id``."""
    return pa.schema([(name, dtype) for name, (dtype, _) in columns.items() if name != "id"])


SCHEMA = schema_of(COLUMNS)
"""Schema of the published rows, without ``id``, in a run without optional stages."""


def _feature(dtype: pa.DataType) -> dict[str, Any]:
    """An Arrow type in the JSON of the ``datasets`` package."""
    if dtype == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_struct(dtype):
        return {field.name: _feature(field.type) for field in dtype}
    if pa.types.is_list(dtype):
        return {"feature": _feature(dtype.value_type), "_type": "List"}
    return {"dtype": {"float": "float32"}.get(str(dtype), str(dtype)), "_type": "Value"}


def huggingface_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """Schema metadata that tells ``datasets`` which columns are pictures."""
    features = {field.name: _feature(field.type) for field in schema}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def metadata_of(columns: Columns) -> dict[bytes, bytes]:
    """The schema metadata of a run's files with these columns."""
    return huggingface_metadata(pa.schema([("id", pa.string()), *schema_of(columns)]))
