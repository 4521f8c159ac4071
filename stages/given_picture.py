"""A row's own picture, as the engine gives it to a stage that reads :data:`stages.base.PICTURES`."""

from collections.abc import Mapping
from typing import Any

from stages.base import Decision, failed, rejected


class PictureChangedError(ValueError):
    """A row's picture is not the planned one."""


def without_picture(row: Mapping[str, Any]) -> Decision | None:
    """The decision about a row that has no picture; None if it has one.

    A picture that was changed or lost after planning fails its row. ``picture_missing``, ``picture_outside``
    (of the captions' folder) and ``picture_too_large`` reject it.
    """
    if row["picture_flaw"] == "picture_changed":
        what = "the picture is not the planned one: put it back, or use another run name (--set name=...)"
        return failed(PictureChangedError(what))
    return rejected(row["picture_flaw"]) if row["picture_flaw"] else None
