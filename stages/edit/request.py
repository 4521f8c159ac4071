"""What the edit stage is asked for, with pictures and masks decoded; the row itself stays as it was read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import Self

from stages.pictures.png import decode_rgb
from stages.pictures.region import MaskedRegion


@dataclass(frozen=True, eq=False)
class Turn:
    """An edit of a session: its row (texts, seed, task), and where it is."""

    row: Mapping[str, Any]
    region: MaskedRegion

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Raises ValueError if a mask cannot be decoded."""
        return cls(row, MaskedRegion.from_row(row))

    @property
    def task(self) -> str:
        return self.row["task"]

    @property
    def seed(self) -> int:
        return self.row["seed"]


@dataclass(frozen=True, eq=False)
class EditRequest:
    """A row to be edited."""

    turn: Turn
    """The one that is drawn now."""
    picture: np.ndarray
    """Of the source stage, uint8 [H,W,3]; in a later turn the one that the turn before published."""
    history: tuple[Turn, ...]
    """The turns before; the row of each names its chosen ``candidate``, by its place in the task's list."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Raises ValueError if a picture or a mask cannot be decoded."""
        history = tuple(Turn.from_row(past) for past in row.get("history", []))
        return cls(Turn.from_row(row), decode_rgb(row["source_image"]), history)

    @property
    def id(self) -> str:
        return self.turn.row["id"]
