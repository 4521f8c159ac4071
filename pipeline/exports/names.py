"""File names of an export: ``train-00000-of-00002.parquet``, numbered without gaps on each side.

``datasets`` and the Hub tell by ``-of-00002`` whether a file is missing. So the number of files is counted
before the first one is opened.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NoReturn, TypeVar

from pipeline.errors import UserError
from pipeline.exports import Side

Writer = TypeVar("Writer")


class Writers(dict[Side, Writer]):
    """The open files of one published file, by side."""

    def __missing__(self, side: Side) -> NoReturn:
        raise UserError("the run was changed while it was exported: give the command again when it is done")


def numbered(sides: Sequence[Sequence[Side]], suffix: str) -> list[dict[Side, str]]:
    """A name for each side of each file.

    Args:
        sides: the sides that have rows, for each file in order.
        suffix: the end of every name, such as ``.tar``.
    """
    total = Counter(side for present in sides for side in present)
    written: Counter[Side] = Counter()
    names: list[dict[Side, str]] = []
    for present in sides:
        names.append({side: f"{side}-{written[side]:05d}-of-{total[side]:05d}{suffix}" for side in present})
        written.update(present)
    return names
