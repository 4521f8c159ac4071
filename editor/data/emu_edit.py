"""Emu Edit's test set (Sheynin et al. 2023): inputs, instructions and two captions, without results.

Two faults of the published files are handled. Files can be named for the other split than their rows' own
column ``split``, which decides here. And some captions say nothing about the pictures: both the same, or a
placeholder. Such rows are left out and counted, because CLIP's metrics of them mean nothing; figures over all
rows therefore differ.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from editor.data.foreign import ForeignRow, UnusableRowError, text
from pipeline.store.location import Location

EMU_EDIT = frozenset({"image", "instruction", "task", "input_caption", "output_caption"})
PLACEHOLDERS = ("a train station in city",)
SPLITS = ("test", "validation")


class EmuEdit:
    """Reads one split of the test set."""

    columns: Sequence[str] = (
        "idx",
        "image",
        "instruction",
        "task",
        "split",
        "input_caption",
        "output_caption",
    )

    def __init__(self, files: Sequence[Location], split: str, notes: Counter[str]) -> None:
        self._split, self._notes = split, notes

    def read(self, file: Location, number: int, record: Mapping[str, Any]) -> ForeignRow | None:
        named = next((name for name in SPLITS if file.name.startswith(name)), "")
        split = text(record, "split") or named
        if split != self._split:
            return None
        if named and named != split:
            self._notes[f"rows of split {split} in files named {named}"] += 1
        before, after = text(record, "input_caption"), text(record, "output_caption")
        plain = [" ".join(caption.lower().strip(" .").split()) for caption in (before, after)]
        if any(caption in PLACEHOLDERS for caption in plain):
            raise UnusableRowError("placeholder instead of a caption")
        if not all(plain):
            raise UnusableRowError("no caption")
        if plain[0] == plain[1]:
            raise UnusableRowError("both captions are the same")
        name = text(record, "idx") or str(number)
        task = text(record, "task") or None
        return ForeignRow(
            name, before, text(record, "instruction"), record["image"], None, before, after, task
        )
