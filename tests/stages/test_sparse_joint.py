"""Held edits of FLUX.1, computed at their text and active tokens alone: equal to the dense held run."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sparse_flops import FAKE
from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.sparse.joint import SparseTransformer
from stages.models.diffusion.families import flux_attention
from stages.models.diffusion.families.flux import FluxNetwork
from tests.stages.test_joint_attention import HELD, LATE, SIZE, STEPS, T, at_tokens, edit, peaky
from tests.stages.tiny_pipelines import WIDTH, flux_transformer

GRID = (SIZE[0] // 2, SIZE[1] // 2)
TOKENS = GRID[0] * GRID[1]
OPEN, CLOSED = (True,) * STEPS, (False,) * STEPS
OTHER = torch.zeros(16, 24)
OTHER[0:8, 12:24] = torch.tensor([0.2, 0.45, 0.7, 1]).repeat_interleave(3)
WIDE = torch.full((16, 24), 0.3)
WIDE[2:14, 1:20] = 0.9
MASKS = {"region": HELD, "another region": OTHER, "most of the picture": WIDE, "none": None}


@pytest.fixture
def exact_positions(monkeypatch):
    """FLUX.1 turns queries and keys in float32: a last bit of float64 would become one of float32."""

    def turned(x, tables, sequence_dim):
        cos, sin = (table[None, :, None].double() for table in tables)
        real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
        return x * cos + torch.stack([-imaginary, real], -1).flatten(-2) * sin

    monkeypatch.setattr(flux_attention, "apply_rotary_emb", turned)


@pytest.fixture(scope="module")
def network():
    return FluxNetwork(peaky(flux_transformer(guidance=True)))


def control_of(edits: list[EditRow], sources: int = 1, dtype=torch.float64) -> JointControl:
    device, options = torch.device("cpu"), {"guided": False, "mask_attention": False}
    return JointControl(edits, sources, STEPS, "qk", TOKENS, device, dtype, **options)


def sparse_network(network) -> SparseTransformer:
    own, attention = FluxNetwork(deepcopy(network.transformer)), JointAttention(hold=True)
    attention.install(own)
    return SparseTransformer(own, attention)


def drawn(call, control: JointControl, seeds: list[int]) -> torch.Tensor:
    """Latents after all steps, turned by Euler's rule; a seed for the conditions of each row."""
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        rows.append([torch.randn(shape, generator=generator) for shape in ((T, WIDTH), (WIDTH,))])
    dtype = call.dtype
    states, pooled = (torch.stack(each).to(dtype) for each in zip(*rows, strict=True))
    first = torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)
    latents, guidance = first.repeat(len(seeds), 1, 1, 1), torch.tensor(seeds) / 10 + 2
    for step in range(STEPS):
        control.before_step(step)
        time = torch.tensor(1000 * (1 - step / STEPS))
        with torch.no_grad():
            velocity = call(latents, time, states, guidance, {"pooled": pooled}).sample
        latents = control.after_step(step, latents - velocity / STEPS)
    return latents


def dense(network, edits: list[EditRow], seeds: list[int]) -> torch.Tensor:
    own, attention = FluxNetwork(deepcopy(network.transformer)), JointAttention(hold=True)
    attention.install(own)
    attention.control = control_of(edits)
    return drawn(own, attention.control, seeds)


def sparse(network, edits: list[EditRow], seeds: list[int], sources: int = 1) -> torch.Tensor:
    call, control = sparse_network(network), control_of(edits, sources, network.dtype)
    call.begin(control, GRID)
    return drawn(call, control, seeds)


@pytest.mark.parametrize("open_", [OPEN, CLOSED, LATE], ids=["open", "closed", "late"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_it_draws_what_the_dense_held_network_draws(network, exact_positions, mask, open_):
    """Two edits with masks that grow over the steps, all steps."""
    edits = [edit(open_=open_, mask=mask), edit(open_=OPEN, mask=OTHER)]
    expected, found = (way(network, edits, [0, 1, 2]) for way in (dense, sparse))
    assert (found - expected).abs().max() < 1e-11
    outside = at_latents(mask) == 0
    assert torch.equal(found[1][:, outside], found[0][:, outside]), "to the bit"
    assert (found[1] - found[0]).abs().max() > 1e-2
    assert (found[2] - found[0]).abs().max() > 1e-2


def at_latents(mask: torch.Tensor | None) -> torch.Tensor:
    """The largest value of M in each latent's 2 x 2 pixels."""
    whole = torch.ones(16, 24) if mask is None else mask
    return whole.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).amax((1, 3))


def test_without_any_mask_it_draws_what_the_dense_network_draws(network, exact_positions):
    edits = [edit(open_=LATE), edit(open_=CLOSED)]
    assert (sparse(network, edits, [0, 1, 2]) - dense(network, edits, [0, 1, 2])).abs().max() < 1e-11


@pytest.mark.parametrize("mistake", ["a filler is looked at", "an active token is not"])
def test_a_list_with_another_token_is_noticed(network, exact_positions, mistake):
    edits = [edit(open_=CLOSED, mask=HELD)]
    call, control = sparse_network(network), control_of(edits)
    call.begin(control, GRID)
    wrong: list[list] = []
    for step in call.plans:
        for each in step:
            active = each.active[:-1]
            if mistake == "a filler is looked at":
                every = torch.arange(TOKENS)
                active = torch.cat([torch.tensor([0]), each.tokens[each.active]])
                each = replace(each, tokens=every)
            wrong.append([replace(each, active=active)])
    call.plans = wrong
    assert (drawn(call, control, [0, 1]) - dense(network, edits, [0, 1])).abs().max() > 1e-3


def test_gathered_positions_have_the_bits_of_the_whole_table():
    embed = flux_transformer().pos_embed
    network = FluxNetwork(torch.nn.Identity())
    positions = network.positions((64, 64), torch.device("cpu"))
    chosen = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(2))[:777].sort().values
    for whole, gathered in zip(embed(positions), embed(positions[chosen]), strict=True):
        assert torch.equal(whole[chosen], gathered)


def test_an_edit_does_not_depend_on_its_neighbours(network):
    """Two sources; to the bit in float32, whatever the other edits' lists, places and number are."""
    single = FluxNetwork(deepcopy(network.transformer).float())
    own = edit(1, LATE, HELD)
    others = [edit(0, OPEN, OTHER), edit(1, CLOSED, WIDE), edit(0, OPEN, None)]
    alone = sparse(single, [own], [0, 1, 2], sources=2)
    for place in range(4):
        edits, seeds = [*others], [3, 4, 5]
        edits.insert(place, own)
        seeds.insert(place, 2)
        among = sparse(single, edits, [0, 1, *seeds], sources=2)
        assert torch.equal(among[2 + place], alone[2])
        assert torch.equal(among[:2], alone[:2])


def test_equal_edits_are_computed_once(network):
    call, own = sparse_network(network), edit(mask=HELD)
    control = control_of([own, edit(mask=OTHER), own])
    call.begin(control, GRID)
    assert all([each.row for each in step] == [1, 2] for step in call.plans[1:])
    latents = drawn(call, control, [0, 1, 2, 1])
    assert torch.equal(latents[1], latents[3])


def test_an_empty_mask_costs_nothing_and_gives_the_source(network):
    call = sparse_network(network)
    control = control_of([edit(mask=torch.zeros(16, 24))])
    call.begin(control, GRID)
    assert call.plans == [[]] * STEPS
    source, edited = drawn(call, control, [0, 1])
    assert torch.equal(source, edited)


def test_lists_are_sixteenths_of_the_picture_and_hold_the_active_tokens(network):
    call = sparse_network(network)
    masks = [HELD, OTHER, WIDE]
    call.begin(control_of([edit(mask=mask) for mask in masks]), GRID)
    lengths = {round(part * TOKENS / 16) for part in range(1, 17)}
    for step, calls in enumerate(call.plans):
        for each in calls:
            assert len(each.tokens) in lengths
            assert len(each.tokens.unique()) == len(each.tokens)
            free = at_tokens(masks[each.row - 1]) > 1 - (step + 1) / STEPS
            assert torch.equal(each.tokens[each.active], free.nonzero().flatten())


@pytest.mark.parametrize("open_", [OPEN, CLOSED], ids=["open", "closed"])
def test_an_edit_costs_its_share_of_the_tokens(open_):
    """At FLUX.1's widths and 1024 px: (n + T) / (N + T) of a row's arithmetic, by torch's counter."""
    side, text = 64, 512
    with FAKE:
        network = FluxNetwork(FluxTransformer2DModel(num_layers=1, num_single_layers=1))
    attention = JointAttention(hold=True)
    attention.install(network)
    call, mask = SparseTransformer(network, attention), torch.zeros(16 * side, 16 * side)
    mask[: 8 * side, : 8 * side] = 1
    nothing = TokenMap(torch.zeros(0, 0), torch.zeros(0))
    blocks, no_text = torch.ones(2, dtype=torch.bool), torch.zeros(STEPS, 0)
    row = EditRow(0, nothing, no_text, torch.tensor(open_), True, mask, blocks=blocks)
    rows = [row, replace(row)]
    control = control_of(rows, dtype=torch.float32)
    counts = []
    for begun in (control, None):
        call.begin(begun, (side, side))
        control.before_step(0)
        given = {"rows": (3, 16, 2 * side, 2 * side), "states": (3, text, 4096), "pooled": (3, 768)}
        with FAKE:
            given = {name: torch.empty(shape) for name, shape in given.items()}
        added = {"pooled": given["pooled"]}
        with FAKE, FlopCounterMode(display=False) as counter:
            call(given["rows"], torch.tensor(500.0), given["states"], None, added)
        counts.append(counter.get_total_flops())
    row = counts[1] / 3
    share = (counts[0] - row) / 2 / row
    expected = (side * side / 4 + text) / (side * side + text)
    assert expected <= share < expected + 0.004, "the rest is the embedding of the text, in these few layers"
