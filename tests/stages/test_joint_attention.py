"""Control of joint attention against an oracle with stored maps, on FLUX.1's whole transformer in float64."""

from copy import deepcopy

import pytest
import torch

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.models.diffusion.families.flux import FluxNetwork
from tests.stages.joint_oracle import JointEdit, JointOracle
from tests.stages.tiny_pipelines import WIDTH, flux_transformer

T, SIZE, STEPS = 5, (8, 12), 4
TOKENS = (SIZE[0] // 2) * (SIZE[1] // 2)
SOFT = torch.zeros(16, 24)
SOFT[4:12, 4:16] = torch.rand(8, 12, generator=torch.Generator().manual_seed(4))
SOFT[6:10, 8:14] = 1


def peaky(transformer):
    """Random weights with which attention is far from even, and every part has an effect."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in transformer.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() >= 2:
            gain = 3 if any(part in name for part in ("to_q", "to_k", "add_q", "add_k")) else 1
            parameter.data = gain * noise / parameter.shape[-1] ** 0.5
        elif "norm" in name and name.endswith("weight"):
            parameter.data = 1.5 + 0.5 * noise
        else:
            parameter.data = 0.1 * noise
    return transformer.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network():
    return FluxNetwork(peaky(flux_transformer(guidance=True)))


def edit(source: int = 0, open_=(True,) * STEPS, mask: torch.Tensor | None = None) -> EditRow:
    nothing = TokenMap(torch.zeros(0, 0), torch.zeros(0))
    blocks = torch.ones(4, dtype=torch.bool)
    return EditRow(
        source, nothing, torch.zeros(STEPS, 0), torch.tensor(open_), shared=True, mask=mask, blocks=blocks
    )


def controlled(edits: list[EditRow], **options) -> JointControl:
    device = torch.device("cpu")
    return JointControl(edits, 1, STEPS, "qk", TOKENS, device, torch.float64, guided=False, **options)


def inputs(rows: int):
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(1, 4, *SIZE, generator=generator).double()
    states = torch.randn(rows, T, WIDTH, generator=generator).double()
    pooled = torch.randn(rows, WIDTH, generator=generator).double()
    guidance = torch.linspace(2, 5, rows)
    return noise.expand(rows, -1, -1, -1), torch.tensor(600.0), states, guidance, {"pooled": pooled}


def predicted(network, core, rows: int) -> torch.Tensor:
    network.install(core)
    with torch.no_grad():
        return network(*inputs(rows)).sample


def ours(network, edits: list[EditRow], step: int = 0, **options) -> torch.Tensor:
    core = JointAttention()
    core.control = controlled(edits, **options)
    core.control.before_step(step)
    return predicted(network, core, 1 + len(edits))


def at_tokens(mask: torch.Tensor) -> torch.Tensor:
    """The largest value of M in each token's 4 x 4 pixels."""
    return mask.unflatten(0, (-1, 4)).unflatten(2, (-1, 4)).amax((1, 3)).flatten().double()


LATE = (False, False, True, True)
CASES = {
    "one edit": [(0, (True,) * STEPS, None)],
    "three edits": [(0, (True,) * STEPS, None), (0, LATE, None), (0, (True,) * STEPS, None)],
    "a session of three turns": [(0, (True,) * STEPS, None), (1, (True,) * STEPS, None), (2, LATE, None)],
    "a soft mask": [(0, (True,) * STEPS, SOFT), (0, LATE, SOFT.flip(0))],
    "a soft mask in a session": [(0, (True,) * STEPS, SOFT), (1, (True,) * STEPS, SOFT.flip(1))],
}


def as_stored(case) -> list[JointEdit]:
    """A case as the oracle reads it."""
    return [
        JointEdit(source, open_, None if mask is None else at_tokens(mask)) for source, open_, mask in case
    ]


@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_what_stored_maps_give(network, case, step):
    oracle = JointOracle(as_stored(case), step)
    rows = 1 + len(case)
    expected = predicted(network, oracle, rows)
    plain = predicted(network, JointAttention(), rows)
    drawn = ours(network, [edit(*each) for each in case], step)
    assert (drawn - expected).abs().max() < 1e-11
    assert torch.equal(drawn[0], plain[0]), "a source is not changed"
    if any(open_[step] for _, open_, _ in case):
        assert (drawn - plain).abs().max() > 1e-2
    assert len(oracle.maps) == len(network.blocks) == 4


@pytest.mark.parametrize(
    "mistake", [{"skipped_layers": (1,)}, {"skipped_layers": (3,)}, {"skipped_tokens": (7,)}]
)
def test_a_layer_or_a_token_without_control_is_noticed(network, mistake):
    wrong = predicted(network, JointOracle([JointEdit(0)], **mistake), 2)
    assert (ours(network, [edit()]) - wrong).abs().max() > 1e-3


def test_a_gate_one_step_off_is_noticed(network):
    early, late = (ours(network, [edit(open_=LATE)], step) for step in (1, 2))
    assert (early - late).abs().max() > 1e-3


def test_the_text_keeps_its_own_queries(network):
    """Otherwise the edit's text would be read as the source's is."""

    class AllTokens(JointOracle):
        def __call__(self, query, key, value, text_tokens):
            query, key = query.clone(), key.clone()
            query[1, :, :text_tokens], key[1, :, :text_tokens] = (
                query[0, :, :text_tokens],
                key[0, :, :text_tokens],
            )
            return super().__call__(query, key, value, text_tokens)

    wrong = predicted(network, AllTokens([JointEdit(0)]), 2)
    assert (ours(network, [edit()]) - wrong).abs().max() > 1e-3


def test_rows_of_the_map_sum_to_one():
    core = JointAttention()
    core.control = controlled([edit(), edit(1)])
    core.control.before_step(0)
    query, key = torch.randn(2, 3, 2, 9, 16, generator=torch.Generator().manual_seed(6)).double()
    assert (core(query, key, torch.ones_like(key), 4) - 1).abs().max() < 1e-12


def test_a_mask_of_ones_is_no_mask(network):
    whole = ours(network, [edit(mask=torch.ones(16, 24))])
    assert torch.equal(whole, ours(network, [edit()]))


def test_without_mask_attention_the_mask_does_not_act_here(network):
    masked = ours(network, [edit(mask=SOFT)], mask_attention=False)
    assert torch.equal(masked, ours(network, [edit()]))
    assert not torch.allclose(masked, ours(network, [edit(mask=SOFT)]))


HELD = torch.zeros(16, 24)
HELD[4:12, 4:16] = 0.4
HELD[4:12, 8:12] = 1


def held(network, edits: list[EditRow], step: int, hold: bool = True) -> tuple[torch.Tensor, list]:
    """The prediction, and the picture's states [R,N,C] after each block."""
    states: list[torch.Tensor] = []
    own = FluxNetwork(deepcopy(network.transformer))
    core = JointAttention(hold=hold)
    core.control = controlled(edits, mask_attention=False)
    core.control.before_step(step)
    core.install(own)
    for block in own.blocks:
        block.register_forward_hook(lambda module, given, output: states.append(output[1]))
    with torch.no_grad():
        return own(*inputs(1 + len(edits))).sample, states


@pytest.mark.parametrize(("step", "active"), [(0, 2 * 1), (2, 2 * 3)])
@pytest.mark.parametrize("open_", [(True,) * STEPS, (False,) * STEPS])
def test_held_tokens_are_the_sources_in_every_block(network, step, active, open_):
    free = at_tokens(HELD) > 1 - (step + 1) / STEPS
    assert free.sum() == active
    predicted_, states = held(network, [edit(open_=open_, mask=HELD), edit(1, open_, HELD)], step)
    assert len(states) == 4
    for each in states:
        assert torch.equal(each[1, ~free], each[0, ~free])
        assert torch.equal(each[2, ~free], each[0, ~free])
        assert (each[1, free] - each[0, free]).abs().max() > 1e-2
        assert (each[2, free] - each[1, free]).abs().max() > 1e-2
    plain = predicted(network, JointAttention(), 3)
    assert torch.equal(predicted_[0], plain[0])
    _, loose = held(network, [edit(open_=open_, mask=HELD)], step, hold=False)
    assert (loose[0][1, ~free] - loose[0][0, ~free]).abs().max() > 1e-2, "without the hold they are not"


def test_active_tokens_are_as_if_the_held_ones_were_pasted_before_every_attention(network):
    """An oracle: keys and values of the held tokens computed from the source's states."""
    step, free = 1, at_tokens(HELD) > 0.5

    class Pasted(JointOracle):
        def __call__(self, query, key, value, text_tokens):
            key, value = key.clone(), value.clone()
            for token in (~free).nonzero().flatten().tolist():
                key[1, :, text_tokens + token] = key[0, :, text_tokens + token]
                value[1, :, text_tokens + token] = value[0, :, text_tokens + token]
            return super().__call__(query, key, value, text_tokens)

    def paste(module, given, output):
        picture = output[1].clone()
        picture[1, ~free] = picture[0, ~free]
        return output[0], picture

    closed = (False,) * STEPS
    drawn, _ = held(network, [edit(open_=closed, mask=HELD)], step)
    for core, close in ((Pasted, True), (JointOracle, False)):
        own = FluxNetwork(deepcopy(network.transformer))
        own.install(core([JointEdit(0, closed)], step))
        for block in own.blocks:
            block.register_forward_hook(paste)
        with torch.no_grad():
            difference = (own(*inputs(2)).sample - drawn).abs().max()
        assert difference < 1e-11 if close else difference > 1e-3


def test_an_edit_without_a_mask_is_not_held(network):
    drawn, _ = held(network, [edit()], 0)
    assert torch.equal(drawn, ours(network, [edit()]))
