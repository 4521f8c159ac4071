"""Similar hashes among many are exactly those that a comparison of all pairs finds."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.audit.hash_index import BITS, HashIndex

HASHES = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12)


def by_hand(ours: list[int], theirs: list[int]) -> set[tuple[int, int, int]]:
    found = set()
    for i, first in enumerate(ours):
        for j, second in enumerate(theirs):
            bits = ((first ^ second) & (2**64 - 1)).bit_count()
            if bits <= BITS:
                found.add((i, j, bits))
    return found


@given(HASHES, HASHES, st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2**64 - 1)), max_size=8))
@example([], [], [])
@example([0], [], [])
@example([-1, -1, 0], [-1, 0, 0], [])
def test_it_finds_what_a_comparison_of_all_pairs_finds(ours, theirs, near):
    for place, mask in near:  # hashes that differ from ours in few bits, or just too many
        if place < len(ours):
            bits = [bit for bit in range(64) if mask >> bit & 1][: BITS + 1]
            flipped = (ours[place] & (2**64 - 1)) ^ sum(1 << bit for bit in bits)
            theirs.append(flipped - 2**64 if flipped >= 2**63 else flipped)
    found = HashIndex(np.array(theirs, np.int64)).similar(np.array(ours, np.int64))
    assert set(map(tuple, found.tolist())) == by_hand(ours, theirs)


def test_many_hashes_take_moments():
    rng = np.random.default_rng(0)
    theirs = rng.integers(-(2**63), 2**63 - 1, 100_000)
    ours = np.concatenate([rng.integers(-(2**63), 2**63 - 1, 50_000), theirs[:3] ^ 0b1010])
    found = HashIndex(theirs).similar(ours)
    assert found.tolist() == [[50_000 + k, k, 2] for k in range(3)]
