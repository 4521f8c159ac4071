"""Batches of one size: every forward pass has one shape, so that no row depends on its neighbours."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

ROWS_OF_WHOLE_REGISTERS = 8
"""A CPU computes functions such as the sigmoid for 32 elements of a tensor at a time. Fewer elements at the
tensor's end are computed by another function, whose last bit can differ. A row has a multiple of 4 elements,
because a box has 4, so 8 rows leave no rest."""


def without_rest(batch: int) -> int:
    """The smallest batch of at least ``batch`` rows in which a row's place changes no bit on a CPU."""
    return -(-batch // ROWS_OF_WHOLE_REGISTERS) * ROWS_OF_WHOLE_REGISTERS


def filled(items: Sequence[Item], batch: int) -> list[Item]:
    """At least one and at most ``batch`` items, filled up to ``batch`` with copies of the last one."""
    return [*items, *[items[-1]] * (batch - len(items))]


def full_batches(items: Sequence[Item], batch: int) -> Iterator[tuple[Sequence[Item], list[Item]]]:
    """The items in batches: each batch as it is, and the same filled up to ``batch`` items."""
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        yield part, filled(part, batch)


def by_shape(items: Sequence[Item], pictures: Sequence[np.ndarray]) -> list[list[Item]]:
    """The items in groups whose pictures have one shape, in the order of the first of each shape."""
    groups: dict[tuple[int, ...], list[Item]] = {}
    for item, picture in zip(items, pictures, strict=True):
        groups.setdefault(picture.shape, []).append(item)
    return list(groups.values())
