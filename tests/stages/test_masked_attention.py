"""Control of joint attention whose text has padding, against an oracle with stored maps, in float64.

Rows have captions of different lengths; both halves of a guided batch are controlled.
"""

from copy import deepcopy

import pytest
import torch

from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.models.diffusion.families.qwen import QwenNetwork
from stages.models.diffusion.families.zimage_files import MULTIPLE
from stages.models.diffusion.families.zimage_network import READ, ZImageNetwork
from tests.stages.test_joint_attention import CASES, HELD, LATE, at_tokens, peaky
from tests.stages.test_sd3_attention import (
    CLOSED,
    OPEN,
    BothHalves,
    JointEdit,
    controlled,
    edit,
    in_both_halves,
)
from tests.stages.tiny_chat_pipelines import TEXT_WIDTH, qwen_transformer, zimage_transformer

SIZE, STEPS = (8, 12), 4
SEEN = {"qwen": (3, 5, 4, 2), "zimage": (20, 40, 33, 64)}
"""Tokens of the unconditional rows and of the others that are no padding."""
NETWORKS = {"qwen": QwenNetwork, "zimage": ZImageNetwork}
TRANSFORMERS = {"qwen": qwen_transformer, "zimage": zimage_transformer}
BLOCKS = 3
"""Layers that see the picture; the first of Z-Image sees it alone."""
STOCK = {"qwen": 1e-12, "zimage": 1e-6}
"""How close the layers are to diffusers' own, whose rotary embeddings are in float32."""


def _by_qwen(network, stock, rows, timestep, states, mask):
    (drawn,) = stock(
        network.pack(rows),
        states,
        mask,
        (timestep / 1000).expand(len(rows)),
        [[(1, *network.grid(SIZE))]] * len(rows),
        return_dict=False,
    )
    return network.unpack(drawn, SIZE)


def _by_zimage(network, stock, rows, timestep, states, mask):
    captions = [row[kinds == READ] for row, kinds in zip(states, mask, strict=True)]
    time = ((1000 - timestep) / 1000).expand(len(rows))
    (drawn,) = stock([*rows[:, :, None]], time, captions, return_dict=False)
    return -torch.stack(drawn)[:, :, 0]


BY_DIFFUSERS = {"qwen": _by_qwen, "zimage": _by_zimage}


@pytest.fixture(scope="module", params=NETWORKS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def network(kind):
    return NETWORKS[kind](peaky(TRANSFORMERS[kind]()))


def inputs(kind: str, rows: int):
    """A guided batch: the unconditional rows have one prompt."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(rows, 4, *SIZE, generator=generator).double()
    noise[1:] = noise[0] + 0.3 * noise[1:]  # in later steps an edit's latents are its own, in both halves
    seen = SEEN[kind]
    states = torch.randn(1 + rows, max(seen), TEXT_WIDTH, generator=generator).double()
    lengths = torch.tensor([seen[row % len(seen)] for row in range(1 + rows)])
    mask = torch.arange(max(seen)) < lengths[:, None]
    if kind == "zimage":
        rooms = -(-lengths // MULTIPLE) * MULTIPLE
        mask = torch.where(mask, READ, (torch.arange(max(seen)) < rooms[:, None]).byte())
    states, mask = (torch.cat([each[:1].expand_as(each[1:]), each[1:]]) for each in (states, mask))
    return torch.cat([noise, noise]), torch.tensor(600.0), states, None, {"mask": mask}


def kind_of(network) -> str:
    return "qwen" if isinstance(network, QwenNetwork) else "zimage"


def predicted(network, core, rows: int) -> torch.Tensor:
    network.install(core)
    with torch.no_grad():
        return network(*inputs(kind_of(network), rows)).sample


def ours(network, edits, step: int = 0, **options) -> torch.Tensor:
    core = JointAttention()
    core.control = controlled(edits, step, **options)
    return predicted(network, core, 1 + len(edits))


def test_its_layers_are_those_of_diffusers(kind, network):
    """With text of different lengths, whose padding neither sees."""
    stock = TRANSFORMERS[kind]().double().eval()
    stock.load_state_dict(network.transformer.state_dict())
    rows, timestep, states, _, added = inputs(kind_of(network), 2)
    with torch.no_grad():
        expected = BY_DIFFUSERS[kind](network, stock, rows, timestep, states, added["mask"])
        own = predicted(network, JointAttention(), 2)
    assert (own - expected).abs().max() < STOCK[kind]
    unseen = torch.where(added["mask"][..., None] > 0, states, 1e3)
    with torch.no_grad():
        assert (network(rows, timestep, unseen, None, added).sample - own).abs().max() < 1e-12


@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_what_stored_maps_give_in_both_halves(kind, network, case, step):
    oracle = in_both_halves(network, predicted, ours, case, step)
    assert [len(half.maps) for half in oracle.halves] == [BLOCKS] * 2


@pytest.mark.parametrize(
    "mistake", [{"skipped_layers": (0,)}, {"skipped_layers": (2,)}, {"skipped_tokens": (7,)}]
)
def test_a_layer_or_a_token_without_control_is_noticed(network, mistake):
    wrong = predicted(network, BothHalves([JointEdit(0)], **mistake), 2)
    assert (ours(network, [edit()]) - wrong).abs().max() > 1e-3


def test_a_gate_one_step_off_is_noticed(network):
    early, late = (ours(network, [edit(open_=LATE)], step) for step in (1, 2))
    assert (early - late).abs().max() > 1e-3


def test_an_edits_padding_is_its_own(network):
    """While it takes its source's picture queries and keys, it sees no padding."""
    rows, timestep, states, _, added = inputs(kind_of(network), 2)
    drawn = ours(network, [edit()])
    unseen = torch.where(added["mask"][..., None] > 0, states, 1e3)
    with torch.no_grad():
        assert (network(rows, timestep, unseen, None, added).sample - drawn).abs().max() < 1e-12


def held(network, edits, step: int, hold: bool = True) -> tuple[torch.Tensor, list]:
    """The prediction, and the picture's states [half,R,N,C] after each block."""
    states: list[torch.Tensor] = []
    own, rows = deepcopy(network), 1 + len(edits)
    core = JointAttention(hold=hold)
    core.control = controlled(edits, step, mask_attention=False)
    core.install(own)
    for block in own.blocks:
        block.register_forward_hook(
            lambda module, given, output: states.append(output[1].unflatten(0, (2, rows)))
        )
    with torch.no_grad():
        return own(*inputs_of_one_picture(network, rows)).sample, states


def inputs_of_one_picture(network, rows: int):
    """Outside the mask an edit's latents are its source's, as fusion leaves them."""
    noise, *others = inputs(kind_of(network), rows)
    free = HELD[::2, ::2] > 0
    source = noise[:1].expand_as(noise)
    return torch.where(free, noise, source), *others


@pytest.mark.parametrize(("step", "active"), [(0, 2 * 1), (2, 2 * 3)])
@pytest.mark.parametrize("open_", [OPEN, CLOSED])
def test_held_tokens_are_the_sources_in_every_block_and_half(kind, network, step, active, open_):
    free = at_tokens(HELD) > 1 - (step + 1) / STEPS
    assert free.sum() == active
    edits = [edit(open_=open_, mask=HELD), edit(1, open_, HELD)]
    drawn, states = held(network, edits, step)
    assert len(states) == BLOCKS
    for each in states:
        for half in each:
            assert torch.equal(half[1, ~free], half[0, ~free])
            assert torch.equal(half[2, ~free], half[0, ~free])
            assert (half[1, free] - half[0, free]).abs().max() > 1e-2
            assert (half[2, free] - half[1, free]).abs().max() > 1e-2
    assert torch.equal(*(each[[0, 3]] for each in (drawn, held(network, edits, step, hold=False)[0])))
    # No pooled prompt modulates the last layer: outside even the prediction is the source's.
    inactive = (~free).unflatten(0, (4, 6)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    for row in (1, 2, 4, 5):
        difference = drawn[row][:, inactive] - drawn[row // 3 * 3][:, inactive]
        assert difference.abs().max() < 1e-13, "but for rounding"
    _, loose = held(network, [edit(open_=open_, mask=HELD)], step, hold=False)
    for half in loose[-1]:
        assert (half[1, ~free] - half[0, ~free]).abs().max() > 1e-2, "without the hold they are not"
