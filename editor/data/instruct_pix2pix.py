"""The format of InstructPix2Pix's pairs (Brooks et al. 2023), as its authors publish them in parquet."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from editor.data.foreign import ForeignRow, text
from pipeline.store.location import Location

INSTRUCT_PIX2PIX = frozenset({"original_image", "edit_prompt", "edited_image"})


class InstructPix2Pix:
    """Reads all rows. They have no ids; a row's number takes its place."""

    columns: Sequence[str] = (
        "original_prompt",
        "original_image",
        "edit_prompt",
        "edited_prompt",
        "edited_image",
    )

    def __init__(self, files: Sequence[Location], split: str, notes: Counter[str]) -> None:
        pass

    def read(self, file: Location, number: int, record: Mapping[str, Any]) -> ForeignRow:
        before = text(record, "original_prompt")
        return ForeignRow(
            str(number),
            before or str(number),
            text(record, "edit_prompt"),
            record["original_image"],
            record["edited_image"],
            before,
            text(record, "edited_prompt"),
        )
