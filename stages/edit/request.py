"""The input of the edit stage with decoded pictures and masks. The row itself stays unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import Self

from stages.pictures.png import decode_rgb
from stages.pictures.region import MaskedRegion


@dataclass(frozen=True, eq=False)
class Turn:
    """An edit of a session: its row (texts, seed, task) and its region."""

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
    """A row to edit."""

    turn: Turn
    """The turn to draw now."""
    picture: np.ndarray
    """The source stage's picture, uint8 [H,W,3]; in a later turn the picture published by the turn before."""
    history: tuple[Turn, ...]
    """The earlier turns.

    The row of each has ``candidate``, the number of its chosen candidate (:mod:`stages.edit.rounds`).
    """
    round: int = 1
    """The round of this turn."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Raises ValueError if a picture or a mask cannot be decoded."""
        history = tuple(Turn.from_row(past) for past in row.get("history", []))
        return cls(Turn.from_row(row), decode_rgb(row["source_image"]), history, row.get("round", 1))

    @property
    def id(self) -> str:
        return self.turn.row["id"]
