"""The pictures of one candidate as the review shows them: full size, lossless, decoded from the run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.verdicts.session import Item
from pipeline.views.rows import rows
from stages.edit.annotations.marks import tinted
from stages.pair import as_pair
from stages.pictures.png import decode_mask, decode_rgb, encode_png
from stages.tasks import Tasks

READS = {
    "plan": ["task"],
    "instruct": ["caption", "instruction", "output_caption"],
    "mask": ["precise_mask"],
    "edit": ["anchor", "candidates"],
}
BRIGHTER = 3
"""Factor on the difference picture, so that a small difference can be seen."""
_CACHED = 4


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A candidate's pair: pictures uint8 RGB [h,w,3], mask float [h,w] in [0,1], and its texts."""

    instruction: str
    input_caption: str
    output_caption: str
    input: np.ndarray
    target: np.ndarray
    mask: np.ndarray


VIEWS: dict[str, Callable[[Exhibit], np.ndarray]] = {
    "input": lambda e: e.input,
    "target": lambda e: e.target,
    "input-mask": lambda e: tinted(e.input, e.mask),
    "target-mask": lambda e: tinted(e.target, e.mask),
    "difference": lambda e: np.minimum(np.abs(e.input.astype(int) - e.target) * BRIGHTER, 255).astype(
        np.uint8
    ),
}
"""The pictures of an exhibit by the name in the page's addresses."""


class Exhibits:
    """Reads exhibits from a run. The latest are kept, because a page asks for several pictures of each."""

    def __init__(self, state: RunState, tasks: Tasks) -> None:
        self._state, self._tasks = state, tasks
        self._read = lru_cache(_CACHED)(self._read_pair)

    def read(self, item: Item) -> Exhibit:
        """The pair of a candidate.

        Raises:
            OSError: a file of the run cannot be read.
            UserError: a file or picture is missing or damaged.
        """
        return self._read(item)

    def _read_pair(self, item: Item) -> Exhibit:
        drawn = item.drawn.row
        found = rows(self._state, drawn.part, READS, turn=drawn.turn, ids=[drawn.id])
        row = next(found, None)
        if row is None or row.get("stage") != "edit":
            raise UserError(f"row {drawn.id} has no pictures: something else changes files of the run")
        candidate, captions = row["candidates"][item.candidate], (row["caption"], row["output_caption"])
        pair = as_pair(self._tasks[drawn.task], row["anchor"], candidate["image"], *captions)
        try:
            i, tar = decode_rgb(pair.input), decode_rgb(pair.target)
            mask = decode_mask(row["precise_mask"])
        except ValueError as error:
            raise UserError(f"row {drawn.id}: {error}; editpairs validate looks at all rows") from error
        if i.shape != tar.shape or i.shape[:2] != mask.shape:
            raise UserError(f"row {drawn.id}: the pictures differ in size")
        return Exhibit(row["instruction"], pair.input_caption, pair.output_caption, i, tar, mask)


def view_png(exhibit: Exhibit, name: str) -> bytes:
    """One of ``VIEWS`` as PNG bytes."""
    return encode_png(VIEWS[name](exhibit))
