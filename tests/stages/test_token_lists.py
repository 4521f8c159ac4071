"""Which tokens an edit computes, and what their convolutions and norms read."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from stages.edit.prompt_to_prompt.fusion import free_above, fuse
from stages.edit.sparse.batch import Batch
from stages.edit.sparse.group_norm import moments, normalise, pasted
from stages.edit.sparse.neighbours import Kind, kinds_of, neighbours, positions
from stages.edit.sparse.plan import plan_step
from stages.edit.sparse.token_lists import (
    SHARES,
    free_tokens,
    level_sizes,
    list_lengths,
    needed_share,
    token_lists,
)

SIZES = st.tuples(st.integers(2, 6), st.integers(2, 6)).map(lambda size: (4 * size[0], 4 * size[1]))


@st.composite
def regions(draw) -> torch.Tensor:
    """Free tokens: a few rectangles in a picture of three levels."""
    height, width = draw(SIZES)
    free = torch.zeros(height, width, dtype=torch.bool)
    for _ in range(draw(st.integers(0, 3))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        free[top : top + draw(st.integers(1, 6)), left : left + draw(st.integers(1, 6))] = True
    return free


@given(
    st.integers(0, 2**32),
    st.integers(1, 12),
    st.data(),
    st.sampled_from(["schedule", "power", "lerp"]),
    st.integers(0, 2),
)
def test_every_token_that_the_fusion_lets_differ_is_free(seed, steps, data, how, halo):
    step = data.draw(st.integers(0, steps - 1))
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, 1, 8, 12, generator=generator)
    mask = torch.where(torch.rand(mask.shape, generator=generator) < 0.4, 0.0, mask)
    differs = fuse(torch.ones(2, 4, 8, 12), torch.zeros(2, 4, 8, 12), mask, how, step, steps)[:, 0] != 0
    free = free_tokens(mask, free_above(how, step, steps), (8, 12), halo)
    assert (free | ~differs).all()
    if halo == 0:
        assert torch.equal(free, differs)


@given(regions())
def test_lists_hold_all_free_tokens_at_every_level_and_each_token_once(free):
    sizes = level_sizes((free.shape[0], free.shape[1]), 3)
    share = needed_share(free, sizes)
    assert (share == 0) == (not free.any())
    if share in (0, 1):
        return
    lists, lengths = token_lists(free, share, sizes), list_lengths(share, sizes)
    for tokens, length, (height, width) in zip(lists, lengths, sizes, strict=True):
        assert len(tokens) == length
        assert len(set(tokens.tolist())) == length
        pooled = functional.adaptive_max_pool2d(free[None].float(), (height, width)).flatten() > 0
        assert pooled.nonzero().flatten().tolist() == [t for t in tokens.tolist() if pooled[t]]


def test_a_list_with_room_takes_the_tokens_around_the_free_ones():
    free = torch.zeros(16, 16, dtype=torch.bool)
    free[6:9, 6:9] = True
    (tokens, *_) = token_lists(free, 1 / 16, level_sizes((16, 16), 3))
    around = torch.zeros(16, 16, dtype=torch.bool)
    around[5:10, 5:10] = True
    assert all(around.flatten()[tokens])


def test_a_region_of_more_than_the_longest_list_is_computed_whole():
    free = torch.ones(16, 16, dtype=torch.bool)
    free[:, : round(16 * (1 - max(SHARES)) - 1)] = False
    assert needed_share(free, level_sizes((16, 16), 3)) == 1


@given(SIZES, st.integers(0, 2**32), st.data())
def test_the_gathered_neighbours_are_what_a_convolution_reads(size, seed, data):
    sizes = level_sizes(size, 3)
    kind = data.draw(st.sampled_from(kinds_of(3)))
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, 3, *sizes[kind.level], generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 3, 3, 3, generator=generator, dtype=torch.float64)
    read = functional.interpolate(features, scale_factor=2.0) if kind.upsamples else features
    expected = functional.conv2d(read, weight, stride=kind.stride, padding=1)[0].flatten(1)
    tokens = expected.shape[1]
    outputs = torch.randperm(tokens, generator=generator)[None, : max(1, tokens // 3)]
    index = neighbours(outputs, kind, sizes)
    table = torch.cat([features[0].flatten(1).T, torch.zeros(1, 3, dtype=torch.float64)])
    gathered = table[index[0]].flatten(1)  # -1 is the last row, of zeros
    found = gathered @ weight.permute(0, 2, 3, 1).flatten(1).T
    assert (found.T - expected[:, outputs[0]]).abs().max() < 1e-12


@given(st.integers(0, 2**32), st.integers(1, 24))
def test_pasted_statistics_are_those_of_the_pasted_picture(seed, listed):
    generator = torch.Generator().manual_seed(seed)
    norm = torch.nn.GroupNorm(4, 8).double()
    torch.nn.init.normal_(norm.weight)
    whole = 3 + 5 * torch.randn(2, 24, 8, generator=generator, dtype=torch.float64)
    tokens = torch.randperm(24, generator=generator)[:listed]
    new = torch.randn(2, listed, 8, generator=generator, dtype=torch.float64)
    picture = whole.clone()
    picture[:, tokens] = new
    expected = norm(picture.transpose(1, 2)).transpose(1, 2)[:, tokens]
    given_ = pasted(moments(whole, 4), moments(whole[:, tokens], 4), moments(new, 4))
    assert (normalise(new, given_, norm) - expected).abs().max() < 1e-9
    theirs = normalise(new, moments(whole, 4), norm)
    assert listed < 12 or (theirs - expected).abs().max() > 1e-6, "the source's own statistics differ"


def test_statistics_are_in_float32_for_half_precision():
    tokens = torch.linspace(-300, 300, 48).view(1, 6, 8).half()
    found = moments(tokens, 2)
    assert (found.mean.dtype, found.deviation.dtype, found.count) == (torch.float32, torch.float32, 24)
    exact = tokens.double().unflatten(2, (2, -1))
    assert found.deviation[0].tolist() == pytest.approx((exact.var((1, 3), correction=0) * 24)[0].tolist())


def test_edits_of_one_length_share_calls_and_the_lists_of_others_change_nothing():
    sizes = level_sizes((16, 16), 3)
    small, large = (torch.zeros(16, 16, dtype=torch.bool) for _ in range(2))
    small[2:5, 2:5] = True
    large[2:10, 2:10] = True
    free = {0: small, 1: large, 2: ~(small & False), 3: small & False}
    found = plan_step(free, Batch(2, [0, 0, 1, 1], [range(4)], 2), sizes, 1)
    assert [(call.edits.tolist(), call.lists is None) for call in found.calls] == [
        ([0], False),
        ([1], False),
        ([2], True),
    ]
    assert found.calls[1].rows.tolist() == [3, 9]
    assert found.calls[2].origins.tolist() == [1, 3]


@pytest.mark.parametrize("rows", [3, 8])
def test_a_short_call_repeats_its_last_edit(rows):
    batch = Batch(1, [0, 0], [range(2)], 2)
    whole = torch.ones(8, 8, dtype=torch.bool)
    (call,) = plan_step({0: whole, 1: whole}, batch, level_sizes((8, 8), 2), rows).calls
    assert call.edits.tolist() == [0, 1] + [1] * (rows - 2)
    assert call.kept.tolist() == [0, 1, rows, rows + 1]


def test_positions_are_places_in_the_list():
    assert positions(torch.tensor([[3, 1]]), 5).tolist() == [[-1, 1, -1, 0, -1]]


def test_a_kind_of_convolution_knows_the_level_of_its_outputs():
    assert [kind.output_level for kind in (Kind(1), Kind(1, stride=2), Kind(1, upsamples=True))] == [1, 2, 0]


def test_a_batch_knows_its_carriers_and_what_comes_from_them():
    batch = Batch(2, [0, 1, 2, 3, 4], [[0, 1], [2, 3], [4]], 2)  # edit 2 edits edit 0, edit 4 edits edit 2
    assert batch.stored_rows == [0, 1, 2, 3, 4]
    assert batch.origins == [0, 1, 0, 1, 2]
    assert batch.roots == [0, 1, 0, 1, 0]
    assert [batch.origin(edit) for edit in range(5)] == [0, 1, 2, 3, 4]
    assert [batch.carried(edit) for edit in range(5)] == [[2, 4], [3], [4], [], []]
