"""Batches of one size: every forward pass has one shape, so that no row depends on its neighbours."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def filled(items: Sequence[Item], batch: int) -> list[Item]:
    """At least one and at most ``batch`` items, filled up to ``batch`` with copies of the last one."""
    return [*items, *[items[-1]] * (batch - len(items))]


def full_batches(items: Sequence[Item], batch: int) -> Iterator[tuple[Sequence[Item], list[Item]]]:
    """The items in batches: each batch as it is, and the same filled up to ``batch`` items."""
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        yield part, filled(part, batch)
