"""Held edits of transformers, computed at their text and active tokens alone: equal to the dense held run."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.sparse.joint import SparseTransformer
from tests.stages.joint_families import FIRST, KINDS, LAST
from tests.stages.joint_families import edit as controlled_edit
from tests.stages.sparse_families import NETWORKS, by_guidance, conditions, guided, turn_exactly
from tests.stages.test_joint_attention import HELD, LATE, SIZE, STEPS, at_tokens

GRID = (SIZE[0] // 2, SIZE[1] // 2)
TOKENS = GRID[0] * GRID[1]
OPEN, CLOSED = (True,) * STEPS, (False,) * STEPS
OTHER = torch.zeros(16, 24)
OTHER[0:8, 12:24] = torch.tensor([0.2, 0.45, 0.7, 1]).repeat_interleave(3)
WIDE = torch.full((16, 24), 0.3)
WIDE[2:14, 1:20] = 0.9
MASKS = {"region": HELD, "another region": OTHER, "most of the picture": WIDE, "none": None}
CONTROLS = [(name, kind) for name in NETWORKS for kind in KINDS if (name, kind) != ("zimage", "p2p")]
controls = pytest.mark.parametrize(("network", "kind"), CONTROLS, indirect=["network"])


@pytest.fixture
def exact_positions(monkeypatch):
    turn_exactly(monkeypatch)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def edit(source: int = 0, open_=OPEN, mask=None, seed: int = 0, blocks=(True,) * 4) -> EditRow:
    return controlled_edit(source, open_, open_, mask, blocks, seed)[0]


def control_of(
    network, edits: list[EditRow], sources: int = 1, dtype=torch.float64, kind: str = "qk"
) -> JointControl:
    made = {}  # equal edits are one object
    for each in edits:
        blocks = each.blocks[: len(network.blocks)]
        made.setdefault(id(each), replace(each, shared=kind != "p2p", blocks=blocks))
    return JointControl(
        [made[id(each)] for each in edits],
        sources,
        STEPS,
        kind,
        TOKENS,
        torch.device("cpu"),
        dtype,
        guided=guided(network),
        mask_attention=False,
    )


def copy_of(network):
    own, attention = type(network)(deepcopy(network.transformer)), JointAttention(hold=True)
    attention.install(own)
    return own, attention


def sparse_network(network) -> SparseTransformer:
    return SparseTransformer(*copy_of(network))


def drawn(call, control: JointControl, seeds: list[int]) -> torch.Tensor:
    """Latents after all steps, turned by Euler's rule; a seed for the conditions of each row."""
    halves, own = len(control.halves), getattr(call, "network", call)
    prompts = [99] * len(seeds) * (halves - 1) + seeds  # unconditional rows have one prompt
    states, added = conditions(own, prompts)
    first = torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(1)).to(call.dtype)
    latents, guidance = first.repeat(len(seeds), 1, 1, 1), torch.tensor(seeds) / 10 + 2
    told = guidance if halves == 1 else None
    for step in range(STEPS):
        control.before_step(step)
        time = torch.tensor(1000 * (1 - step / STEPS))
        with torch.no_grad():
            velocity = call(latents.repeat(halves, 1, 1, 1), time, states, told, added).sample
        if halves == 2:
            velocity = by_guidance(own, velocity, guidance)
        latents = control.after_step(step, latents - velocity / STEPS)
    return latents


def dense(network, edits: list[EditRow], seeds: list[int], kind: str = "qk") -> torch.Tensor:
    own, attention = copy_of(network)
    attention.control = control_of(network, edits, kind=kind)
    return drawn(own, attention.control, seeds)


def sparse(network, edits: list[EditRow], seeds: list[int], sources: int = 1, kind="qk") -> torch.Tensor:
    call, control = sparse_network(network), control_of(network, edits, sources, network.dtype, kind)
    call.begin(control, GRID)
    return drawn(call, control, seeds)


@pytest.mark.parametrize("open_", [OPEN, CLOSED, LATE], ids=["open", "closed", "late"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@controls
def test_it_draws_what_the_dense_held_network_draws(network, exact_positions, kind, mask, open_):
    """Two edits with masks that grow over the steps, all steps."""
    edits = [edit(open_=open_, mask=mask), edit(open_=OPEN, mask=OTHER, seed=1)]
    expected, found = (way(network, edits, [0, 1, 2], kind=kind) for way in (dense, sparse))
    assert (found - expected).abs().max() < 1e-11
    outside = at_latents(mask) == 0
    assert torch.equal(found[1][:, outside], found[0][:, outside]), "to the bit"
    assert (found[1] - found[0]).abs().max() > 1e-2
    assert (found[2] - found[0]).abs().max() > 1e-2


@controls
def test_edits_controlled_in_some_blocks_are_those_of_the_dense_held_network(network, exact_positions, kind):
    edits = [edit(mask=HELD, blocks=FIRST), edit(mask=OTHER, seed=1, blocks=LAST)]
    expected, found = (way(network, edits, [0, 1, 2], kind=kind) for way in (dense, sparse))
    assert (found - expected).abs().max() < 1e-11
    everywhere = sparse(network, [edit(mask=HELD), edit(mask=OTHER, seed=1)], [0, 1, 2], kind=kind)
    assert (everywhere[1:] - found[1:]).abs().amax((1, 2, 3)).min() > 1e-3


def at_latents(mask: torch.Tensor | None) -> torch.Tensor:
    """The largest value of M in each latent's 2 x 2 pixels."""
    whole = torch.ones(16, 24) if mask is None else mask
    return whole.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).amax((1, 3))


def test_without_any_mask_it_draws_what_the_dense_network_draws(network, exact_positions):
    edits = [edit(open_=LATE), edit(open_=CLOSED)]
    expected, found = (way(network, edits, [0, 1, 2]) for way in (dense, sparse))
    assert (found - expected).abs().max() < 1e-11


@pytest.mark.parametrize("mistake", ["a filler is looked at", "an active token is not"])
def test_a_list_with_another_token_is_noticed(network, exact_positions, mistake):
    edits = [edit(open_=CLOSED, mask=HELD)]
    call, control = sparse_network(network), control_of(network, edits)
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


def test_an_edit_does_not_depend_on_its_neighbours(network):
    """Two sources; to the bit in float32, whatever the other edits' lists, places and number are."""
    single = type(network)(deepcopy(network.transformer).float())
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
    control = control_of(network, [own, edit(mask=OTHER), own])
    call.begin(control, GRID)
    assert all([each.edit for each in step] == [0, 1] for step in call.plans[1:])
    latents = drawn(call, control, [0, 1, 2, 1])
    assert torch.equal(latents[1], latents[3])


def test_an_empty_mask_costs_nothing_and_gives_the_source(network):
    call = sparse_network(network)
    control = control_of(network, [edit(mask=torch.zeros(16, 24))])
    call.begin(control, GRID)
    assert call.plans == [[]] * STEPS
    source, edited = drawn(call, control, [0, 1])
    assert torch.equal(source, edited)


def test_lists_are_sixteenths_of_the_picture_and_hold_the_active_tokens(network):
    call = sparse_network(network)
    masks = [HELD, OTHER, WIDE]
    call.begin(control_of(network, [edit(mask=mask) for mask in masks]), GRID)
    lengths = {round(part * TOKENS / 16) for part in range(1, 17)}
    for step, calls in enumerate(call.plans):
        for each in calls:
            assert len(each.tokens) in lengths
            assert len(each.tokens.unique()) == len(each.tokens)
            free = at_tokens(masks[each.edit]) > 1 - (step + 1) / STEPS
            assert torch.equal(each.tokens[each.active], free.nonzero().flatten())
