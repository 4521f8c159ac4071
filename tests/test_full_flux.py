"""FLUX.1 at its published size, on a device without values: shapes alone."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.sampler import sample
from tests.stages.tiny_pipelines import flux_transformer

STEPS = 2


def draw(transformer: FluxTransformer2DModel, side: int, tokens: int, hold: bool) -> torch.Tensor:
    """A source with its edit under a mask, on ``meta``, where waiting for a value fails."""
    device, network = torch.device("meta"), FluxNetwork(transformer.to("meta"))
    config = transformer.config
    nothing = TokenMap(torch.zeros(0, 0), torch.zeros(0))
    gates, blocks = torch.tensor([True, False]), torch.ones(len(network.blocks), dtype=torch.bool)
    mask = torch.ones(8 * side, 8 * side)
    edit = EditRow(0, nothing, torch.zeros(STEPS, 0), gates, shared=True, mask=mask, blocks=blocks)
    core, options = JointAttention(hold=hold), {"guided": False, "mask_attention": not hold}
    core.control = JointControl([edit], 1, STEPS, "qk", side**2 // 4, device, transformer.dtype, **options)
    core.install(network)
    return sample(
        network,
        FlowMatchEulerDiscreteScheduler(),
        torch.empty(2, config.in_channels // 4, side, side, device=device),
        torch.empty(2, tokens, config.joint_attention_dim, device=device, dtype=transformer.dtype),
        None,
        torch.ones(2, device=device),
        STEPS,
        core.control,
        added={
            "pooled": torch.empty(2, config.pooled_projection_dim, device=device, dtype=transformer.dtype)
        },
        timestep_cond=torch.ones(2, device=device) if config.guidance_embeds else None,
        schedule={"sigmas": [1.0, 0.5], "mu": 1.0},
    )


@pytest.mark.parametrize("hold", [False, True])
def test_the_loop_never_waits_for_the_device(hold):
    assert draw(flux_transformer(guidance=True), 8, 5, hold).shape == (2, 4, 8, 8)


@pytest.mark.full
@pytest.mark.parametrize(("guidance", "tokens", "billions"), [(True, 512, 11.90), (False, 256, 11.89)])
def test_flux_draws_an_edit_at_its_published_size(guidance, tokens, billions):
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=guidance).bfloat16()
    assert sum(p.numel() for p in transformer.parameters()) == pytest.approx(billions * 1e9, rel=0.001)
    assert len(FluxNetwork(transformer).blocks) == 19 + 38
    for hold in (False, True):
        assert draw(transformer, 128, tokens, hold).shape == (2, 16, 128, 128)
