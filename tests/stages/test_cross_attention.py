"""Prompt-to-Prompt on transformers with cross-attention, against an oracle that stores its maps, in float64.

Text has padding, of another length in every row: each map sees the tokens of the row whose keys it uses.
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from stages.edit.prompt_to_prompt.attention import attend, install
from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.outside import held
from stages.models.diffusion.families.cross import linear_attention
from stages.models.diffusion.families.pixart import PixArtNetwork
from stages.models.diffusion.families.sana import SanaNetwork
from stages.models.diffusion.sampler import SCHEDULERS, sample
from tests.stages import oracle as maps
from tests.stages.oracle import Oracle
from tests.stages.test_joint_attention import peaky
from tests.stages.test_prompt_to_prompt_oracle import CASES, LENGTH, WRONG, Case, edit, row_of, soft_mask
from tests.stages.tiny_cross_pipelines import TEXT_WIDTH, pixart_transformer, sana_transformer

STEPS, TOKENS = 5, 16
SEEN = (7, 10, 5, 8, 9)
"""Tokens of the unconditional rows and of the others that are no padding."""
NETWORKS = {
    "pixart": (lambda: PixArtNetwork(peaky(pixart_transformer())), 8),
    "sana": (lambda: SanaNetwork(peaky(sana_transformer())), 4),
    "sana 1.5": (lambda: SanaNetwork(peaky(sana_transformer(qk_norm="rms_norm_across_heads"))), 4),
}
NAMES = ("replace by more tokens", "refine", "reweight", "local blend", "self-attention shared", "soft mask")
NAMES += ("three edits of one source", "a third turn with local blend", "without guidance", "windows")


@pytest.fixture(scope="module", params=NETWORKS)
def made(request):
    """A network, and the side of latents with 4 x 4 tokens."""
    build, side = NETWORKS[request.param]
    return build(), side


def run(made, case: Case, control) -> torch.Tensor:
    """Latents at the end, from noise that rows of one source share."""
    network, side = made
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(case.sources, 4, side, side, generator=generator).double()
    rows = case.sources + len(case.edits)
    cond = torch.randn(rows, LENGTH, TEXT_WIDTH, generator=generator).double()
    uncond = torch.randn(LENGTH, TEXT_WIDTH, generator=generator).double()
    lengths = torch.tensor([SEEN[row % len(SEEN)] for row in range(1 + rows)])
    mask = torch.arange(LENGTH) < lengths[:, None]
    guided = case.options.get("guided", True)
    mask = torch.cat([mask[:1].expand(rows, -1), mask[1:]]) if guided else mask[1:]
    roots = list(range(case.sources))
    for e in case.edits:
        roots.append(roots[e.source])
    return sample(
        network,
        SCHEDULERS["ddim"](clip_sample=False),
        noise[roots],
        cond,
        uncond if guided else None,
        torch.full((rows,), 3.0),
        STEPS,
        control,
        added={"mask": mask},
    )


def by_oracle(made, case: Case) -> torch.Tensor:
    def typed(e):
        mask = None if e.mask is None else e.mask.double()
        return replace(e, matrix=e.matrix.double(), own=e.own.double(), mask=mask)

    edits = [typed(e) for e in case.edits]
    control = Oracle(edits, case.sources, STEPS, TOKENS, blend_tokens=TOKENS, **case.options)
    maps.install(made[0].transformer, control, linear=made[0].linear)
    return run(made, case, control)


def ours(made, case: Case) -> torch.Tensor:
    network = made[0]
    layers = install(network.transformer, linear_attention if network.linear else attend)
    control = PromptToPrompt(
        [row_of(e) for e in case.edits],
        case.sources,
        STEPS,
        TOKENS,
        torch.device("cpu"),
        torch.float64,
        blend_tokens=TOKENS,
        **case.options,
    )
    for layer in layers:
        layer.control = control
    return run(made, case, control)


def test_its_layers_are_those_of_diffusers(made):
    network, side = made
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(2, 4, side, side, generator=generator).double()
    states = torch.randn(2, LENGTH, TEXT_WIDTH, generator=generator).double()
    mask = torch.arange(LENGTH) < torch.tensor([[7], [4]])
    stock = deepcopy(network)
    fresh = (
        pixart_transformer() if isinstance(network, PixArtNetwork) else sana_transformer()
    ).attn_processors
    stock.transformer.set_attn_processor(fresh)
    install(network.transformer, linear_attention if network.linear else attend)
    arguments = (rows, torch.tensor(600.0), states, None, {"mask": mask})
    with torch.no_grad():
        expected, own = (each(*arguments).sample for each in (stock, network))
        unseen = torch.where(mask[..., None], states, -states)
        other = network(rows, torch.tensor(600.0), unseen, None, {"mask": mask}).sample
    assert own.shape == rows.shape, "without variances"
    assert (own - expected).abs().max() < (1e-5 if network.linear else 1e-12)
    assert (own - other).abs().max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_stored_maps_give(made, name):
    case = CASES[name]
    expected = by_oracle(made, case)
    scale = expected.abs().max()
    drawn = ours(made, case)
    assert (drawn - expected).abs().max() < 1e-11 * scale
    free = [edit(cross=(0, 0), self_=(0, 0), source=e.source) for e in case.edits]
    plain = ours(made, replace(case, edits=free))
    assert (drawn - plain).abs().max() > 1e-3 * scale, "the control matters"
    assert (drawn[: case.sources] - plain[: case.sources]).abs().max() == 0, "a source is not changed"


@pytest.mark.parametrize("name", ["a cross gate one step short", "a self gate one step short"])
def test_what_is_a_little_off_is_noticed(made, name):
    right, wrong = WRONG[name]
    case = CASES[right]
    other = replace(case, edits=[replace(case.edits[0], **wrong)])
    expected = by_oracle(made, case)
    assert (ours(made, other) - expected).abs().max() > 1e-4 * expected.abs().max()


def test_held_tokens_are_the_sources_in_every_block_and_half(made):
    """And their predictions, because no prompt modulates the last layer."""
    network, side = deepcopy(made[0]), made[1]
    layers = install(network.transformer, linear_attention if network.linear else attend)
    mask = soft_mask()
    edits = [replace(row_of(edit()), mask=mask), replace(row_of(edit(source=1)), mask=mask)]
    control = PromptToPrompt(
        edits, 1, STEPS, TOKENS, torch.device("cpu"), torch.float64, mask_attention=False, blend_tokens=TOKENS
    )
    for layer in layers:
        layer.control = control
    control.before_step(2)
    inactive = control.inactive(TOKENS)
    assert 0 < inactive[0].sum() < TOKENS
    states: list[torch.Tensor] = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, given, output: held(output, control, inactive))
        block.register_forward_hook(lambda module, given, output: states.append(output))
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 4, side, side, generator=generator).double().expand(6, -1, -1, -1)
    text = torch.randn(6, LENGTH, TEXT_WIDTH, generator=generator).double()
    seen = torch.ones(6, LENGTH, dtype=torch.bool)
    with torch.no_grad():
        drawn = network(noise, torch.tensor(600.0), text, None, {"mask": seen}).sample
    outside = inactive[0, :, 0]
    for each in states:
        for half in each.unflatten(0, (2, 3)):
            assert torch.equal(half[1, outside], half[0, outside])
            assert torch.equal(half[2, outside], half[0, outside])
            assert (half[1, ~outside] - half[0, ~outside]).abs().max() > 1e-3
    patch = side // 4
    pixels = outside.unflatten(0, (4, 4)).repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    for half in drawn.unflatten(0, (2, 3)):
        assert (half[1:, :, pixels] - half[:1, :, pixels]).abs().max() < 1e-13
