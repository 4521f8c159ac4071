"""Batches of one size."""

from hypothesis import given
from hypothesis import strategies as st

from stages.models.batches import full_batches


@given(st.lists(st.integers(), max_size=40), st.integers(1, 9))
def test_every_item_is_in_one_batch_and_every_batch_is_full_with_copies_of_its_last_item(items, batch):
    parts = list(full_batches(items, batch))
    assert [item for part, _ in parts for item in part] == items
    assert all(len(filled) == batch for _, filled in parts)
    assert all(filled == [*part, *[part[-1]] * (batch - len(part))] for part, filled in parts)
