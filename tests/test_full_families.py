"""The families with masked text at their published sizes, on a device without values: shapes alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    ZImageTransformer2DModel,
)

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.attention import attend, install
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.models.diffusion.families.cross import linear_attention
from stages.models.diffusion.families.pixart import PixArtNetwork
from stages.models.diffusion.families.qwen import QwenNetwork
from stages.models.diffusion.families.sana import SanaNetwork
from stages.models.diffusion.families.zimage_network import ZImageNetwork
from stages.models.diffusion.sampler import sample
from tests.stages.tiny_chat_pipelines import TEXT_WIDTH, qwen_transformer, zimage_transformer
from tests.stages.tiny_cross_pipelines import pixart_transformer, sana_transformer

STEPS = 2


@dataclass(frozen=True)
class Size:
    """A network, small and as published; its latents' channels and side, the width of its text."""

    network: Callable[[Any], Any]
    small: Callable[[], Any]
    published: Callable[[], Any]
    billions: float
    channels: int
    side: int
    width: int
    blocks: int


JOINT = {
    "qwen": Size(QwenNetwork, qwen_transformer, QwenImageTransformer2DModel, 20.43, 16, 128, 3584, 60),
    "zimage": Size(ZImageNetwork, zimage_transformer, ZImageTransformer2DModel, 6.15, 16, 128, 2560, 2 + 30),
}


def draw(network: Any, channels: int, side: int, width: int, tokens: int, hold: bool) -> torch.Tensor:
    """A guided source with its edit under a mask, on ``meta``, where waiting for a value fails."""
    device, dtype = torch.device("meta"), network.dtype
    mask, nothing = torch.ones(8 * side, 8 * side), TokenMap(torch.zeros(0, 0), torch.zeros(0))
    gate, blocks = torch.tensor([True, False]), torch.ones(len(network.blocks), dtype=torch.bool)
    edit = EditRow(0, nothing, torch.zeros(STEPS, 0), gate, shared=True, mask=mask, blocks=blocks)
    core = JointAttention(hold=hold)
    core.control = JointControl(
        [edit], 1, STEPS, "qk", (side // 2) ** 2, device, dtype, mask_attention=not hold
    )
    core.install(network)
    states = torch.empty(2, tokens, width, device=device, dtype=dtype)
    return sample(
        network,
        FlowMatchEulerDiscreteScheduler(),
        torch.empty(2, channels, side, side, device=device),
        states,
        states[:1],
        torch.ones(2, device=device),
        STEPS,
        core.control,
        added={"mask": torch.empty(4, tokens, dtype=torch.bool, device=device)},
    )


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("size", JOINT.values(), ids=JOINT)
def test_the_loop_never_waits_for_the_device(size, hold):
    network = size.network(size.small().to("meta"))
    assert draw(network, 4, 8, TEXT_WIDTH, 32, hold).shape == (2, 4, 8, 8)


@pytest.mark.full
@pytest.mark.parametrize("size", JOINT.values(), ids=JOINT)
def test_it_draws_an_edit_at_its_published_size(size):
    with torch.device("meta"):
        transformer = size.published().bfloat16()
    assert sum(p.numel() for p in transformer.parameters()) == pytest.approx(size.billions * 1e9, rel=0.01)
    network = size.network(transformer)
    assert len(network.blocks) == size.blocks
    for hold in (False, True):
        drawn = draw(network, size.channels, size.side, size.width, 256, hold)
        assert drawn.shape == (2, size.channels, size.side, size.side)


CROSS = {
    "pixart": Size(
        PixArtNetwork,
        pixart_transformer,
        lambda: PixArtTransformer2DModel(caption_channels=4096, use_additional_conditions=False),
        0.61,
        4,
        128,
        4096,
        28,
    ),
    "sana": Size(SanaNetwork, sana_transformer, SanaTransformer2DModel, 1.60, 32, 32, 2304, 20),
}


def draw_by_maps(network: Any, channels: int, side: int, width: int, tokens: int) -> torch.Tensor:
    """The same under Prompt-to-Prompt's control of cross-attention."""
    device, dtype = torch.device("meta"), network.dtype
    mask, same = torch.ones(8 * side, 8 * side), TokenMap(torch.eye(tokens), torch.zeros(tokens))
    edit = EditRow(0, same, torch.ones(STEPS, tokens), torch.tensor([True, False]), mask=mask)
    control = PromptToPrompt([edit], 1, STEPS, side**2, device, dtype)
    for layer in install(network.transformer, linear_attention if network.linear else attend):
        layer.control = control
    states = torch.empty(2, tokens, width, device=device, dtype=dtype)
    return sample(
        network,
        FlowMatchEulerDiscreteScheduler(),
        torch.empty(2, channels, side, side, device=device),
        states,
        states[:1],
        torch.ones(2, device=device),
        STEPS,
        control,
        added={"mask": torch.empty(4, tokens, dtype=torch.bool, device=device)},
    )


@pytest.mark.parametrize("size", CROSS.values(), ids=CROSS)
def test_the_loop_of_cross_attention_never_waits_for_the_device(size):
    network = size.network(size.small().to("meta"))
    assert draw_by_maps(network, 4, 8, TEXT_WIDTH, 10).shape == (2, 4, 8, 8)


@pytest.mark.full
@pytest.mark.parametrize("size", CROSS.values(), ids=CROSS)
def test_cross_attention_draws_an_edit_at_its_published_size(size):
    with torch.device("meta"):
        transformer = size.published().bfloat16()
    assert sum(p.numel() for p in transformer.parameters()) == pytest.approx(size.billions * 1e9, rel=0.01)
    network = size.network(transformer)
    assert len(network.blocks) == size.blocks
    drawn = draw_by_maps(network, size.channels, size.side, size.width, 300)
    assert drawn.shape == (2, size.channels, size.side, size.side)
