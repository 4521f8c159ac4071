"""Edits of any data set in parquet: ours, Emu Edit's test set, MagicBrush, InstructPix2Pix.

The columns tell which one it is. Rows that cannot be used are counted by reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from editor.data.emu_edit import EMU_EDIT, SPLITS, EmuEdit
from editor.data.examples import Reading, pair_files
from editor.data.foreign import ForeignRow, Reader, UnusableRowError
from editor.data.instruct_pix2pix import INSTRUCT_PIX2PIX, InstructPix2Pix
from editor.data.magicbrush import MAGICBRUSH, MagicBrush
from editor.data.pictures import decode_picture
from pipeline.errors import UserError
from pipeline.store.location import Location
from pipeline.store.reading import open_parquet

OURS = frozenset({"I", "T", "Tar", "TI"})
_BATCH = 16


@dataclass(frozen=True)
class Edit:
    """An edit: pictures uint8 [H,W,3], instruction, captions (empty if there are none)."""

    id: str
    group: str
    """Edits of one input picture, which are alike."""
    instruction: str
    before: np.ndarray
    after: np.ndarray | None
    """The true result; None if the data set has none."""
    before_caption: str = ""
    after_caption: str = ""
    task: str | int | None = None
    """The task's name or its index (TI); None if the data set says nothing."""


@dataclass
class EditSet:
    """The edits of a data set, one after another.

    Args:
        path: a run, an export, a folder of parquet files, or one file.
        test_share: of pairs of ours, only those whose caption is held out at this share.
        split: of Emu Edit's test set, only rows of this split.
        trained: captions of input pictures that an editor was trained on; their edits are left out.
        side: cut the centre square out of every picture and resize it to this many pixels; None: as they are.
    """

    path: str
    test_share: float = 1.0
    split: str = "test"
    side: int | None = None
    trained: frozenset[str] = frozenset()
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    """Further counts that a reader should know."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"--split {self.split}: the splits are {', '.join(SPLITS)}")

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the first file.

        Raises:
            UserError: the path holds no parquet files, or a file cannot be read.
        """
        with open_parquet(pair_files(self.path)[0], pa.schema([])) as file:
            return frozenset(file.schema_arrow.names)

    @property
    def format(self) -> str:
        """The data set's name.

        Raises:
            UserError: the columns are those of no known data set.
        """
        columns = self.columns
        for name, needed in FORMATS.items():
            if needed <= columns:
                return name
        known = "; ".join(f"{name}: {', '.join(sorted(needed))}" for name, needed in FORMATS.items())
        raise UserError(
            f"{self.path}: the columns {', '.join(sorted(columns))} are those of no known data set ({known})"
        )

    def __iter__(self) -> Iterator[Edit]:
        """Read every usable edit.

        Raises:
            UserError: a file is damaged, or the columns are unknown.
        """
        for edit in self._ours() if self.format == "editpairs" else self._foreign():
            if edit.before_caption in self.trained:
                self.skipped["caption that an editor was trained on"] += 1
                continue
            yield edit if self.side is None else _squared(edit, self.side)

    def _ours(self) -> Iterator[Edit]:
        reading = Reading([self.path], self.test_share, inverse=False, skipped=self.skipped)
        for row in reading.rows(_BATCH):
            if row.side == "train":
                self.skipped["not held out from training (--test-share 1 takes all pairs)"] += 1
                continue
            (example,) = row.examples
            captions = row.input_caption, row.output_caption
            group, text = row.input_caption, example.instruction
            name = row.id if row.turn == 1 else f"{row.id}-turn{row.turn}"  # ids are unique within a turn
            yield Edit(name, group, text, row.before, row.after, *captions, example.index)

    def _foreign(self) -> Iterator[Edit]:
        files = pair_files(self.path)
        reader = _READERS[self.format](files, self.split, self.notes)
        number = 0
        for file in files:
            for record in _records(file, reader.columns):
                number += 1
                try:
                    row = reader.read(file, number, record)
                    if row is not None:
                        yield self._edit(row)
                except UnusableRowError as error:
                    self.skipped[str(error)] += 1

    def _edit(self, row: ForeignRow) -> Edit:
        if not row.instruction.strip():
            raise UnusableRowError("no instruction")
        before = _decoded(row.before)
        after = None if row.after is None else _decoded(row.after)
        if after is not None and after.shape != before.shape:
            raise UnusableRowError("pictures of different sizes")
        captions = row.before_caption.strip(), row.after_caption.strip()
        return Edit(row.id, row.group, row.instruction.strip(), before, after, *captions, row.task)


FORMATS = {
    "editpairs": OURS,
    "MagicBrush": MAGICBRUSH,
    "InstructPix2Pix": INSTRUCT_PIX2PIX,
    "Emu Edit's test set": EMU_EDIT,
}
_READERS: dict[str, type[Reader]] = {
    "MagicBrush": MagicBrush,
    "InstructPix2Pix": InstructPix2Pix,
    "Emu Edit's test set": EmuEdit,
}


def _records(file: Location, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    with open_parquet(file, pa.schema([])) as opened:
        there = opened.schema_arrow.names
        columns = [name for name in wanted if name in there]
        for batch in opened.iter_batches(batch_size=_BATCH, columns=columns):
            yield from batch.to_pylist()


def _decoded(value: Any) -> np.ndarray:
    """A picture of a row: its bytes, or a struct with them. A path in it is never opened."""
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(content, bytes):
        raise UnusableRowError("no picture")
    try:
        return decode_picture(content)
    except ValueError as error:
        raise UnusableRowError("picture that cannot be read") from error


def _squared(edit: Edit, side: int) -> Edit:
    after = None if edit.after is None else _square(edit.after, side)
    return replace(edit, before=_square(edit.before, side), after=after)


def _square(picture: np.ndarray, side: int) -> np.ndarray:
    height, width = picture.shape[:2]
    length = min(height, width)
    top, left = (height - length) // 2, (width - length) // 2
    image = Image.fromarray(picture[top : top + length, left : left + length])
    return np.array(image.resize((side, side), Image.Resampling.BICUBIC))
