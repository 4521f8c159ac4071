"""Gates in steps, with the published rounding (docs/prompt-to-prompt.md, section 4)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.edit.prompt_to_prompt.gates import cross_gate, self_gate, shared_gate
from stages.edit.prompt_to_prompt.windows import count_window


@pytest.mark.parametrize(
    ("until", "steps", "open_steps"),
    [(0.8, 50, 40), (0.8, 10, 8), (0.4, 10, 4), (0.9, 4, 4), (0.2, 4, 1), (1, 7, 7)],
)
def test_cross_gates_round_as_published(until, steps, open_steps):
    gate = cross_gate(steps, 3, (0, until))
    assert gate[:open_steps].all()
    assert not gate[open_steps:].any()


@pytest.mark.parametrize(
    ("window", "steps", "expected"), [((0, 0.4), 10, range(4)), ((0.25, 0.9), 4, range(1, 3))]
)
def test_self_gates_round_as_published(window, steps, expected):
    assert self_gate(steps, window).nonzero().flatten().tolist() == list(expected)


def test_a_words_window_replaces_the_default_one():
    gate = cross_gate(10, 5, (0, 0.8), [([2, 3], (0.2, 0.4)), ([3], (0, 0))])
    assert gate[:, 0].sum() == 8
    assert gate[:, 2].nonzero().flatten().tolist() == [2, 3]
    assert not gate[:, 3].any(), "the later exception wins"


def test_instruct_pix2pix_shares_while_its_strength_is_above_the_steps_share():
    assert shared_gate(5, 0.6).tolist() == [True, True, True, False, False]
    assert shared_gate(1, 0.1).tolist() == [True]
    assert not shared_gate(5, 0.0).any()


@given(st.integers(1, 60), st.data(), st.booleans())
def test_a_count_of_steps_opens_exactly_so_many(steps, data, cross):
    count = data.draw(st.integers(0, steps))
    window = count_window(count, steps, cross=cross)
    gate = cross_gate(steps, 1, window)[:, 0] > 0 if cross else self_gate(steps, window)
    assert torch.equal(gate, torch.arange(steps) < count)


def test_more_steps_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"gate over 5 steps.*is 4"):
        count_window(5, 4, cross=True)


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1))
def test_longer_windows_hold_shorter_ones(steps, first, second):
    low, high = sorted((first, second))
    assert (cross_gate(steps, 1, (0, low)) <= cross_gate(steps, 1, (0, high))).all()
    assert (self_gate(steps, (0, low)) <= self_gate(steps, (0, high))).all()
