"""Row counts by (task, status, reason), packed. The footers of a large run hold millions of such counts.

A packed count is a pair of int32: the key's number in this process, and the rows. numpy adds up a whole
stage's counts at once.
"""

import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

Key: TypeAlias = tuple[str, str, str]
Counts: TypeAlias = Counter[Key]
"""Number of rows by (task, status, reason)."""

_keys: list[Key] = []
_numbers: dict[Key, int] = {}
_lock = threading.Lock()


def key_number(key: Key) -> int:
    """A number for the key. Equal keys get the same number for the lifetime of the process."""
    number = _numbers.get(key)
    if number is None:
        with _lock:
            number = _numbers.setdefault(key, len(_keys))
            if number == len(_keys):
                _keys.append(key)
    return number


def known_keys() -> Sequence[Key]:
    """All keys seen so far; a key's position is its number."""
    return _keys


def pack(counts: Iterable[tuple[Key, int]]) -> bytes:
    """Pack counts.

    Raises:
        TypeError, OverflowError: a count is not a 32-bit integer.
    """
    return array("i", [n for key, rows in counts for n in (key_number(key), rows)]).tobytes()


def unpack(packed: Iterable[bytes]) -> Counts:
    """Add up packed counts."""
    numbers, rows = np.frombuffer(b"".join(packed), np.int32).reshape(-1, 2).T
    sums = np.bincount(numbers, rows).astype(np.int64)  # bincount adds in float64: exact up to 2**53
    return Counter({_keys[number]: int(sums[number]) for number in np.unique(numbers)})
