"""Transformers with joint attention, of any size and with random weights."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from diffusers import (
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    ZImageTransformer2DModel,
)
from torch import nn

from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.families.joint import JointNetwork
from stages.models.diffusion.families.qwen import QwenNetwork
from stages.models.diffusion.families.sd3 import SD3Network
from stages.models.diffusion.families.zimage_network import READ, ZImageNetwork

TEXT_WIDTH = 4096
"""Of the states of a prompt's tokens."""


@dataclass(frozen=True)
class Family:
    """A family.

    Attributes:
        network: its class.
        build: makes the transformer, with random weights.
        pooled: width of the pooled prompt; 1 if it has none.
        guided: whether there are unconditional rows.
        read: what its mask has at tokens that were read.
    """

    network: type[JointNetwork]
    build: Callable[[argparse.Namespace], nn.Module]
    pooled: int
    guided: bool
    read: int = 1


def _flux(options: argparse.Namespace) -> nn.Module:
    """A third of the blocks has two streams, as of FLUX.1's 57."""
    return FluxTransformer2DModel(
        num_layers=options.layers // 3,
        num_single_layers=options.layers - options.layers // 3,
        num_attention_heads=options.heads,
        attention_head_dim=options.head,
        axes_dims_rope=_axes(options),
    )


def _axes(options: argparse.Namespace) -> tuple[int, int, int]:
    """How many channels of a head are turned by each axis, in the proportion of the published models."""
    return options.head // 8, options.head * 7 // 16, options.head * 7 // 16


def _qwen(options: argparse.Namespace) -> nn.Module:
    return QwenImageTransformer2DModel(
        num_layers=options.layers,
        num_attention_heads=options.heads,
        attention_head_dim=options.head,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=_axes(options),
    )


def _zimage(options: argparse.Namespace) -> nn.Module:
    """The first two blocks see the picture alone, and two more the text."""
    quarter = options.head // 4
    return ZImageTransformer2DModel(
        dim=options.heads * options.head,
        n_layers=options.layers - 2,
        n_refiner_layers=2,
        n_heads=options.heads,
        n_kv_heads=options.heads,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[quarter, quarter * 3 // 2, quarter * 3 // 2],
    )


def _sd3(options: argparse.Namespace) -> nn.Module:
    return SD3Transformer2DModel(
        sample_size=2 * options.side,
        num_layers=options.layers,
        num_attention_heads=options.heads,
        attention_head_dim=options.head,
        caption_projection_dim=options.heads * options.head,
        pos_embed_max_size=options.side,
        out_channels=16,
        qk_norm="rms_norm",
    )


FAMILIES = {
    "flux": Family(FluxNetwork, _flux, 768, False),
    "sd3": Family(SD3Network, _sd3, 2048, True),
    "qwen": Family(QwenNetwork, _qwen, 1, True),
    "zimage": Family(ZImageNetwork, _zimage, 1, True, READ),
}
