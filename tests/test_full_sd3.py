"""Stable Diffusion 3 and 3.5 at their published sizes, on a device without values: shapes alone."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.models.diffusion.families.sd3 import SD3Network
from stages.models.diffusion.sampler import sample
from tests.stages.tiny_pipelines import sd3_transformer

STEPS = 2
PUBLISHED = {
    "3 medium": ({"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}, 2.03),
    "3.5 medium": (
        {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        2.24,
    ),
    "3.5 large": (
        {
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "qk_norm": "rms_norm",
        },
        8.06,
    ),
}


def draw(transformer: SD3Transformer2DModel, side: int, tokens: int, hold: bool) -> torch.Tensor:
    """A guided source with its edit under a mask, on ``meta``, where waiting for a value fails."""
    device, network = torch.device("meta"), SD3Network(transformer.to("meta"))
    config, dtype = transformer.config, transformer.dtype
    mask, nothing = torch.ones(8 * side, 8 * side), TokenMap(torch.zeros(0, 0), torch.zeros(0))
    gates, blocks = torch.tensor([True, False]), torch.ones(len(network.blocks), dtype=torch.bool)
    edit = EditRow(0, nothing, torch.zeros(STEPS, 0), gates, shared=True, mask=mask, blocks=blocks)
    core, tokens_drawn = JointAttention(hold=hold), side**2 // config.patch_size**2
    core.control = JointControl([edit], 1, STEPS, "qk", tokens_drawn, device, dtype, mask_attention=not hold)
    core.install(network)
    states = torch.empty(2, tokens, config.joint_attention_dim, device=device, dtype=dtype)
    return sample(
        network,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        torch.empty(2, config.in_channels, side, side, device=device),
        states,
        states[:1],
        torch.ones(2, device=device),
        STEPS,
        core.control,
        added={"pooled": torch.empty(4, config.pooled_projection_dim, device=device, dtype=dtype)},
    )


@pytest.mark.parametrize("hold", [False, True])
def test_the_loop_never_waits_for_the_device(hold):
    assert draw(sd3_transformer(), 8, 5, hold).shape == (2, 4, 8, 8)


@pytest.mark.full
@pytest.mark.parametrize(("widths", "billions"), PUBLISHED.values(), ids=PUBLISHED)
def test_it_draws_an_edit_at_its_published_size(widths, billions):
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(**{"pos_embed_max_size": 192, **widths}).bfloat16()
    assert sum(p.numel() for p in transformer.parameters()) == pytest.approx(billions * 1e9, rel=0.01)
    assert len(SD3Network(transformer).blocks) == widths["num_layers"]
    for hold in (False, True):
        assert draw(transformer, 128, 77 + 256, hold).shape == (2, 16, 128, 128)
