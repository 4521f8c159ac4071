"""Arithmetic of pairs whose edits are computed in their regions only, at published U-Nets' shapes.

    python -m benchmarks.sparse_flops

Torch's own counter counts one step with guidance, on tensors without values. The figures are
shares of what plainly sampling the same pictures costs.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from rich.console import Console
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import models
from benchmarks.attention_variants import TOKENS, Variant, control_of, plainly, region_mask
from pipeline.shown import plain_table
from stages.edit.prompt_to_prompt.attention import install
from stages.edit.sparse.unet import SparseUNet

FAKE = FakeTensorMode(allow_non_fake_inputs=True)
FAMILIES = ("sd15", "sdxl")
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
EDITS = (1, 4)


def build(family: str) -> UNet2DConditionModel:
    """A U-Net without values."""
    with FAKE:
        return UNet2DConditionModel(**models.FAMILIES[family])


def inputs(unet: UNet2DConditionModel, pictures: int) -> dict[str, Any]:
    """The inputs of one step with guidance, without values."""
    side, rows = unet.config.sample_size, 2 * pictures
    with FAKE:
        given = {
            "sample": torch.empty(rows, 4, side, side),
            "timestep": torch.empty((), dtype=torch.long),
            "encoder_hidden_states": torch.empty(rows, TOKENS, unet.config.cross_attention_dim),
        }
        if unet.config.addition_embed_type == "text_time":
            added = {"text_embeds": torch.empty(rows, 1280), "time_ids": torch.empty(rows, 6)}
            return {**given, "added_cond_kwargs": added}
    return given


def flops_of_plain(family: str, pictures: int) -> int:
    """Floating-point operations of one step of so many pictures."""
    unet = build(family)
    install(unet)
    with FAKE, FlopCounterMode(display=False) as counter:
        unet(**inputs(unet, pictures))
    return counter.get_total_flops()


def flops_of_sparse(family: str, edits: int, share: float) -> int:
    """The same of a source and its edits in a region of this share; all gates are open."""
    unet = build(family)
    side = unet.config.sample_size
    variant = Variant("", 1, edits, plainly, family, torch.float32)
    control = control_of(variant, unet, 2, region_mask(side, share))
    sparse = SparseUNet(unet, "support", halo=0)
    sparse.begin(control, (side, side))
    control.before_step(0)
    given = inputs(unet, 1 + edits)
    with FAKE, FlopCounterMode(display=False) as counter:
        control.before_sampling(given["encoder_hidden_states"], (side, side))
        sparse(
            given["sample"],
            given["timestep"],
            given["encoder_hidden_states"],
            None,
            given.get("added_cond_kwargs"),
        )
    return counter.get_total_flops()


def main() -> None:
    table = plain_table("U-Net", "edits a source", *(f"region {share:g}" for share in SHARES), text=1)
    for family in FAMILIES:
        for edits in EDITS:
            plain = flops_of_plain(family, 1 + edits)
            shares = [flops_of_sparse(family, edits, share) / plain for share in SHARES]
            table.add_row(family, str(edits), *(f"{share:.2f}" for share in shares))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
