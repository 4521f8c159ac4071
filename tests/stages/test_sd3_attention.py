"""Control of Stable Diffusion 3's attention against an oracle with stored maps, in float64.

Both halves of a guided batch are controlled; SD 3.5 has layers that see the picture alone.
"""

from copy import deepcopy

import pytest
import torch

from stages.edit.prompt_to_prompt.captions import Captions
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.prompt_to_prompt.recipe import Strength, edit_row, in_blocks
from stages.models.diffusion.families.sd3 import SD3Network
from stages.tasks import Candidate
from tests.stages.joint_oracle import JointEdit, JointOracle
from tests.stages.test_joint_attention import CASES, HELD, LATE, TOKENS, as_stored, at_tokens, peaky
from tests.stages.tiny_pipelines import POOLED, WIDTH, sd3_transformer

T, SIZE, STEPS = 5, (8, 12), 4
OPEN, CLOSED = (True,) * STEPS, (False,) * STEPS


@pytest.fixture(scope="module", params=[True, False], ids=["sd35", "sd3"])
def network(request):
    return SD3Network(peaky(sd3_transformer(request.param)))


class BothHalves:
    """The oracle on the unconditional and the conditional rows apart."""

    def __init__(self, edits: list[JointEdit], step: int = 0, kind=JointOracle, **mistake) -> None:
        self.halves = [kind(edits, step, **mistake) for _ in range(2)]

    def __call__(self, query, key, value, text_tokens):
        pairs = zip(self.halves, *(each.chunk(2) for each in (query, key, value)), strict=True)
        return torch.cat([half(*heads, text_tokens) for half, *heads in pairs])


def edit(source: int = 0, open_=OPEN, mask: torch.Tensor | None = None) -> EditRow:
    """As the edit stage makes it."""
    steps = [step for step in range(STEPS) if open_[step]]
    window = {"self_from": min(steps) / STEPS, "self_until": 1.0} if steps else {"self_until": 0.0}
    candidate = Candidate.model_validate(window)
    everywhere = torch.ones(16, 24) if mask is None else mask
    row = edit_row(
        candidate,
        Strength(0, 1, 4),
        Captions([], "", ""),
        index=source,
        steps=STEPS,
        mask=everywhere,
        blend=None,
        joint="qk",
        blocks=in_blocks(1.0, 3),
    )
    assert row.self_.tolist() == list(open_)
    return row


def controlled(edits: list[EditRow], step: int, **options) -> JointControl:
    control = JointControl(edits, 1, STEPS, "qk", TOKENS, torch.device("cpu"), torch.float64, **options)
    control.before_step(step)
    return control


def inputs(rows: int):
    """A guided batch: the unconditional rows have one prompt."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(rows, 4, *SIZE, generator=generator).double()
    noise[1:] = noise[0] + 0.3 * noise[1:]  # in later steps an edit's latents are its own, in both halves
    states = torch.randn(1 + rows, T, 3 * WIDTH, generator=generator).double()
    pooled = torch.randn(1 + rows, 2 * POOLED, generator=generator).double()
    states, pooled = (torch.cat([each[:1].expand_as(each[1:]), each[1:]]) for each in (states, pooled))
    return torch.cat([noise, noise]), torch.tensor(600.0), states, None, {"pooled": pooled}


def predicted(network, core, rows: int) -> torch.Tensor:
    network.install(core)
    with torch.no_grad():
        return network(*inputs(rows)).sample


def ours(network, edits: list[EditRow], step: int = 0, **options) -> torch.Tensor:
    core = JointAttention()
    core.control = controlled(edits, step, **options)
    return predicted(network, core, 1 + len(edits))


def in_both_halves(network, predicted, ours, case, step: int) -> BothHalves:
    """Check a case in both halves of a guided batch; the oracle then has the maps that it stored.

    Args:
        network: of a family.
        predicted, ours: this file's, or another family's.
    """
    oracle, rows = BothHalves(as_stored(case), step), 1 + len(case)
    expected = predicted(network, oracle, rows)
    plain = predicted(network, JointAttention(), rows)
    drawn = ours(network, [edit(*each) for each in case], step)
    assert (drawn - expected).abs().max() < 1e-11
    assert torch.equal(drawn[[0, rows]], plain[[0, rows]]), "a source is not changed"
    if any(open_[step] for _, open_, _ in case):
        changed = (drawn - plain).abs().unflatten(0, (2, rows))
        assert (changed.amax((1, 2, 3, 4)) > 1e-2).all(), "both halves"
    return oracle


@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_what_stored_maps_give_in_both_halves(network, case, step):
    oracle = in_both_halves(network, predicted, ours, case, step)
    dual = len(network.config.dual_attention_layers)
    assert [len(half.maps) for half in oracle.halves] == [3 + dual] * 2


@pytest.mark.parametrize(
    "mistake", [{"skipped_layers": (1,)}, {"skipped_layers": (2,)}, {"skipped_tokens": (7,)}]
)
def test_a_layer_or_a_token_without_control_is_noticed(network, mistake):
    """Layer 1 of SD 3.5 is one of those that see the picture alone."""
    wrong = predicted(network, BothHalves([JointEdit(0)], **mistake), 2)
    assert (ours(network, [edit()]) - wrong).abs().max() > 1e-3


def test_a_gate_one_step_off_is_noticed(network):
    early, late = (ours(network, [edit(open_=LATE)], step) for step in (1, 2))
    assert (early - late).abs().max() > 1e-3


class Pasted(JointOracle):
    """Held tokens have the source's keys and values."""

    free = at_tokens(HELD) > 0.5

    def __call__(self, query, key, value, text_tokens):
        key, value = key.clone(), value.clone()
        for token in (~self.free).nonzero().flatten().tolist():
            key[1, :, text_tokens + token] = key[0, :, text_tokens + token]
            value[1, :, text_tokens + token] = value[0, :, text_tokens + token]
        return super().__call__(query, key, value, text_tokens)


def held(network, edits: list[EditRow], step: int, hold: bool = True) -> tuple[torch.Tensor, list]:
    """The prediction, and the picture's states [half,R,N,C] after each block."""
    states: list[torch.Tensor] = []
    own, rows = SD3Network(deepcopy(network.transformer)), 1 + len(edits)
    core = JointAttention(hold=hold)
    core.control = controlled(edits, step, mask_attention=False)
    core.install(own)
    for block in own.blocks:
        block.register_forward_hook(
            lambda module, given, output: states.append(output[1].unflatten(0, (2, rows)))
        )
    with torch.no_grad():
        return own(*inputs(rows)).sample, states


@pytest.mark.parametrize(("step", "active"), [(0, 2 * 1), (2, 2 * 3)])
@pytest.mark.parametrize("open_", [OPEN, CLOSED])
def test_held_tokens_are_the_sources_in_every_block_and_half(network, step, active, open_):
    free = at_tokens(HELD) > 1 - (step + 1) / STEPS
    assert free.sum() == active
    drawn, states = held(network, [edit(open_=open_, mask=HELD), edit(1, open_, HELD)], step)
    assert len(states) == 3
    for each in states:
        for half in each:
            assert torch.equal(half[1, ~free], half[0, ~free])
            assert torch.equal(half[2, ~free], half[0, ~free])
            assert (half[1, free] - half[0, free]).abs().max() > 1e-2
            assert (half[2, free] - half[1, free]).abs().max() > 1e-2
    plain = predicted(network, JointAttention(), 3)
    assert torch.equal(drawn[[0, 3]], plain[[0, 3]])
    _, loose = held(network, [edit(open_=open_, mask=HELD)], step, hold=False)
    for half in loose[0]:
        assert (half[1, ~free] - half[0, ~free]).abs().max() > 1e-2, "without the hold they are not"


def test_active_tokens_are_as_if_the_held_ones_were_pasted_before_every_attention(network):
    """An oracle: keys and values of the held tokens computed from the source's states."""
    step, free = 1, Pasted.free

    def paste(module, given, output):
        picture = output[1].clone()
        for start in (0, 2):
            picture[start + 1, ~free] = picture[start, ~free]
        return output[0], picture

    drawn, _ = held(network, [edit(open_=CLOSED, mask=HELD)], step)
    for kind, close in ((Pasted, True), (JointOracle, False)):
        own = SD3Network(deepcopy(network.transformer))
        own.install(BothHalves([JointEdit(0, CLOSED)], step, kind))
        for block in own.blocks:
            block.register_forward_hook(paste)
        with torch.no_grad():
            difference = (own(*inputs(2)).sample - drawn).abs().max()
        assert difference < 1e-11 if close else difference > 1e-3
