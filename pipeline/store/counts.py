"""Rows by (task, status, reason), packed: the footers of a large run hold millions of such numbers.

Packed they are pairs of int32, a key's number in this process and its rows, so that those of a whole
stage are added up at once.
"""

import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

Key: TypeAlias = tuple[str, str, str]
Counts: TypeAlias = Counter[Key]
"""Rows by (task, status, reason)."""

_keys: list[Key] = []
_numbers: dict[Key, int] = {}
_lock = threading.Lock()


def key_number(key: Key) -> int:
    """The number of a key: one for equal keys, as long as the process lives."""
    number = _numbers.get(key)
    if number is None:
        with _lock:
            number = _numbers.setdefault(key, len(_keys))
            if number == len(_keys):
                _keys.append(key)
    return number


def known_keys() -> Sequence[Key]:
    """All keys so far, by number."""
    return _keys


def pack(counts: Iterable[tuple[Key, int]]) -> bytes:
    """Pack rows by key.

    Raises:
        TypeError, OverflowError: rows are not an integer of 32 bits.
    """
    return array("i", [n for key, rows in counts for n in (key_number(key), rows)]).tobytes()


def unpack(packed: Iterable[bytes]) -> Counts:
    """The sum of packed counts."""
    numbers, rows = np.frombuffer(b"".join(packed), np.int32).reshape(-1, 2).T
    sums = np.bincount(numbers, rows).astype(np.int64)  # float64 inside: exact up to 2**53
    return Counter({_keys[number]: int(sums[number]) for number in np.unique(numbers)})
