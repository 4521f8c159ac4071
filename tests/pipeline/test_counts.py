from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.counts import key_number, known_keys, pack, unpack

KEYS = st.tuples(*[st.text(max_size=3)] * 3)
COUNTS = st.dictionaries(KEYS, st.integers(1, 2**31 - 1), max_size=5)


@given(st.lists(COUNTS, max_size=5))
def test_what_is_packed_adds_up_as_counters_do(several):
    expected = sum((Counter(counts) for counts in several), Counter())
    assert unpack(pack(counts.items()) for counts in several) == expected


@given(KEYS)
def test_equal_keys_have_one_number(key):
    number = key_number(key)
    assert key_number(tuple(key)) == number
    assert known_keys()[number] == key


@pytest.mark.parametrize("rows", ["7", 1.5, None, 2**31])
def test_what_is_no_number_is_refused(rows):
    with pytest.raises((TypeError, OverflowError)):
        pack([(("add", "kept", ""), rows)])
