"""Near duplicates among many hashes, in time that hardly grows faster than their number."""

import numpy as np

MOST_BITS = 15
"""Greatest distance: then a band is one byte of the hash."""


def near_duplicates(hashes: np.ndarray, bits: int) -> np.ndarray:
    """Which hashes differ from an earlier one in at most ``bits`` bits.

    Two hashes that near are equal in one of ``bits + 1`` bands of bytes at least, so that only hashes
    with an equal band are compared.

    Args:
        hashes: uint8 [n,16]: 128 bits each.
        bits: at most ``MOST_BITS``.

    Returns:
        bool [n].
    """
    found = np.zeros(len(hashes), bool)
    # Equal hashes first: the bands then hold few that are alike.
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
