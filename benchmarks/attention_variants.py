"""The ways to draw pairs that :mod:`benchmarks.attention` compares."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from benchmarks import models, published
from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.attention import begin, install
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.gates import cross_gate, self_gate
from stages.edit.sparse.unet import SparseUNet
from stages.models.device import default_device
from stages.models.diffusion.sampler import sample

TOKENS = 77
SMALL = {
    "sample_size": 32,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (64, 128, 256, 256),
    "cross_attention_dim": 128,
    "attention_head_dim": 8,
}
"""The shape of Stable Diffusion's U-Net at a tenth of its width, with latents of half of the side."""
FAMILIES = {"small": SMALL, "narrow": SMALL | {"sample_size": 64}, **models.FAMILIES}
"""``narrow`` has latents of the full side."""
SELF_MAX_TOKENS = {"small": 16**2, "narrow": 16**2, "sd15": 16**2, "sdxl": 32**2}
CROSS_UNTIL, SELF_UNTIL = 0.8, 0.4
DEVICE = default_device()


def clock() -> float:
    """CPU seconds of this process; on a GPU, wall seconds."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@dataclass(frozen=True)
class Variant:
    """One way to draw ``sources * edits`` pairs in one call."""

    name: str
    sources: int
    edits: int
    run: Callable[["Variant", UNet2DConditionModel, int], None]
    family: str
    dtype: torch.dtype
    memory_format: torch.memory_format = torch.channels_last
    region: float | None = None
    """Share of the picture that the edits compute; None: the whole picture."""

    @property
    def pairs(self) -> int:
        return self.sources * self.edits


@cache
def build_unet(family: str, dtype: torch.dtype) -> UNet2DConditionModel:
    """A U-Net with random weights."""
    torch.manual_seed(0)
    with DEVICE:
        return UNet2DConditionModel(**FAMILIES[family]).to(dtype).eval().requires_grad_(False)


@cache
def build_sparse_unet(family: str, dtype: torch.dtype) -> SparseUNet:
    """The same U-Net with sparse layers."""
    unet = copy.deepcopy(build_unet(family, dtype)).to(memory_format=torch.channels_last)
    return SparseUNet(unet, "support", halo=0)


def draw(unet: UNet2DConditionModel | SparseUNet, rows: int, steps: int, control=None) -> None:
    generator, side = torch.Generator().manual_seed(1), unet.config.sample_size
    noise = torch.randn(1, 4, side, side, generator=generator).expand(rows, -1, -1, -1)
    cond = torch.randn(rows, TOKENS, unet.config.cross_attention_dim, generator=generator)
    uncond = torch.randn(TOKENS, unet.config.cross_attention_dim, generator=generator)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    states = (states.to(DEVICE, unet.dtype) for states in (cond, uncond))
    guidance = torch.full((rows,), 7.5, device=DEVICE)
    added = models.added_conditions(unet, 2 * rows)
    sample(unet, scheduler, noise.to(DEVICE), *states, guidance, steps, control, added=added)


def by_published_loop(variant: Variant, unet: UNet2DConditionModel, steps: int) -> None:
    matrix = torch.eye(TOKENS, device=DEVICE, dtype=unet.dtype)
    controller = published.PublishedReplace(
        matrix, variant.edits, steps, CROSS_UNTIL, SELF_UNTIL, SELF_MAX_TOKENS[variant.family]
    )
    published.install(unet, controller)
    draw(unet, 1 + variant.edits, steps, controller)


def control_of(variant: Variant, unet: UNet2DConditionModel, steps: int, mask=None) -> PromptToPrompt:
    """The control of all edits, with one mask."""
    tokens = TokenMap(torch.eye(TOKENS), torch.zeros(TOKENS))
    gates = cross_gate(steps, TOKENS, (0, CROSS_UNTIL)), self_gate(steps, (0, SELF_UNTIL))
    rows = [
        EditRow(source, tokens, *gates, mask=mask)
        for source in range(variant.sources)
        for _ in range(variant.edits)
    ]
    return PromptToPrompt(rows, variant.sources, steps, SELF_MAX_TOKENS[variant.family], DEVICE, unet.dtype)


def by_ours(variant: Variant, unet: UNet2DConditionModel, steps: int, mask=None) -> None:
    control = control_of(variant, unet, steps, mask)
    begin(install(unet), control)
    draw(unet, variant.sources * (1 + variant.edits), steps, control)


def by_ours_masked(variant: Variant, unet: UNet2DConditionModel, steps: int) -> None:
    side = unet.config.sample_size
    mask = torch.zeros(8 * side, 8 * side)
    mask[side : 4 * side, side : 4 * side] = 0.7
    by_ours(variant, unet, steps, mask)


def region_mask(side: int, share: float) -> torch.Tensor:
    """A rectangle in a corner of the picture with this share of its area, in pixels."""
    height = 2 ** round(math.log2(share) / 2)
    mask = torch.zeros(8 * side, 8 * side)
    mask[: round(8 * side * height), : round(8 * side * share / height)] = 1
    return mask


def by_ours_sparse(variant: Variant, unet: UNet2DConditionModel, steps: int) -> None:
    sparse, side = build_sparse_unet(variant.family, variant.dtype), unet.config.sample_size
    assert variant.region is not None
    control = control_of(variant, unet, steps, region_mask(side, variant.region))
    sparse.begin(control, (side, side))
    draw(sparse, variant.sources * (1 + variant.edits), steps, control)


def plainly(variant: Variant, unet: UNet2DConditionModel, steps: int) -> None:
    """Without a control; with our padding of narrow heads, so that only the control's cost is compared."""
    install(unet)
    draw(unet, variant.sources * (1 + variant.edits), steps)
