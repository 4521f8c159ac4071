"""Near duplicates among many hashes, in nearly linear time."""

import numpy as np

MOST_BITS = 15
"""Largest distance: then a band is one byte of the hash."""


def near_duplicates(hashes: np.ndarray, bits: int) -> np.ndarray:
    """Which hashes differ from an earlier hash in at most ``bits`` bits.

    If two hashes differ in at most ``bits`` bits, at least one of ``bits + 1`` bands of bytes is equal.
    Therefore only hashes with an equal band are compared.

    Args:
        hashes: uint8 [n,16]: 128 bits each.
        bits: at most ``MOST_BITS``.

    Returns:
        bool [n].
    """
    found = np.zeros(len(hashes), bool)
    # Remove equal hashes first, so that few hashes share a band.
    _, first, group = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    found[first[group.ravel()] < np.arange(len(hashes))] = True
    if bits == 0:
        return found
    rows = np.sort(first)
    distinct = hashes[rows]
    for band in np.array_split(np.arange(hashes.shape[1]), bits + 1):
        keys = np.unique(distinct[:, band], axis=0, return_inverse=True)[1].ravel()
        order = np.lexsort((rows, keys))
        for step in range(1, len(order)):
            earlier, later = order[:-step], order[step:]
            same = keys[earlier] == keys[later]
            if not same.any():
                break
            earlier, later = earlier[same], later[same]
            differing = np.unpackbits(distinct[earlier] ^ distinct[later], axis=1).sum(1)
            found[rows[later[differing <= bits]]] = True
    return found
