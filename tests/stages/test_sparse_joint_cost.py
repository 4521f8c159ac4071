"""The arithmetic of held edits of transformers that are computed in their regions, at full widths."""

from dataclasses import replace

import pytest
import torch
from diffusers import (
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    ZImageTransformer2DModel,
)
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sparse_flops import FAKE
from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.sparse.joint import SparseTransformer
from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.families.qwen import QwenNetwork
from stages.models.diffusion.families.sd3 import SD3Network
from stages.models.diffusion.families.zimage_network import ZImageNetwork
from tests.stages.test_sparse_joint import CLOSED, OPEN, control_of


class InnerBlocks(SD3Network):
    """Without the last block, which computes no text."""

    @property
    def blocks(self):
        return [self.transformer.transformer_blocks[0]] * 2


LARGE = {
    "flux": lambda: FluxNetwork(FluxTransformer2DModel(num_layers=1, num_single_layers=1)),
    "qwen": lambda: QwenNetwork(QwenImageTransformer2DModel(num_layers=2)),
    "zimage": lambda: ZImageNetwork(ZImageTransformer2DModel(n_layers=2, n_refiner_layers=1)),
    "sd3": lambda: InnerBlocks(  # 3.5 large
        SD3Transformer2DModel(
            num_layers=2,
            num_attention_heads=38,
            caption_projection_dim=2432,
            pos_embed_max_size=192,
            out_channels=16,
            qk_norm="rms_norm",
        )
    ),
}
SHAPES = {
    "flux": (512, 4096, 768),
    "sd3": (333, 4096, 2048),
    "qwen": (256, 3584, 1),
    "zimage": (256, 2560, 1),
}
"""Tokens of text, the width of their states, and that of the pooled vector."""


@pytest.mark.parametrize(
    ("family", "kind", "open_"),
    [
        ("flux", "qk", OPEN),
        ("flux", "p2p", CLOSED),
        ("sd3", "qk", OPEN),
        ("sd3", "kv", OPEN),
        ("qwen", "qk", OPEN),
        ("qwen", "p2p", CLOSED),
        ("zimage", "qk", OPEN),
    ],
)
def test_an_edit_costs_its_share_of_the_tokens(family, kind, open_):
    """At full widths and 1024 px: (n + T) / (N + T) of a row's arithmetic, by torch's counter."""
    text = SHAPES[family][0]
    share = cost_of_an_edit(family, kind, open_)
    expected = (64 * 64 / 4 + text) / (64 * 64 + text)
    if family == "zimage":
        expected -= 0.0025  # text and picture are first refined apart
    assert expected <= share < expected + 0.005, "the rest are embeddings, in these few layers"


@pytest.mark.parametrize("family", ["flux", "sd3", "qwen"])
def test_p2p_costs_one_more_attention_of_the_picture(family):
    text = SHAPES[family][0]
    expected = (64 * 64 / 4 + text) / (64 * 64 + text)
    assert 1.05 * expected < cost_of_an_edit(family, "p2p", OPEN) < 1.2 * expected


def cost_of_an_edit(family: str, kind: str, open_) -> float:
    """The arithmetic of an edit of a quarter of the picture, of that of a whole row."""
    with FAKE:
        network = LARGE[family]()
    attention, side = JointAttention(hold=True), 64
    attention.install(network)
    text, width, pooled = SHAPES[family]
    call, mask = SparseTransformer(network, attention), torch.zeros(16 * side, 16 * side)
    mask[: 8 * side, : 8 * side] = 1
    tokens = TokenMap(torch.eye(text), torch.arange(text) % 2.0)
    gate = torch.tensor(open_)
    row = EditRow(0, tokens, gate[:, None].repeat(1, text).float(), gate, mask=mask)
    row = replace(row, blocks=torch.ones(4, dtype=torch.bool))
    control = control_of(network, [row, replace(row)], dtype=torch.float32, kind=kind)
    counts, rows = [], 3 * len(control.halves)
    for begun in (control, None):
        call.begin(begun, (side, side))
        control.before_step(0)
        given = {"rows": (rows, 16, 2 * side, 2 * side), "states": (rows, text, width)}
        with FAKE:
            given = {name: torch.empty(shape) for name, shape in given.items()}
            added = {"pooled": torch.empty(rows, pooled), "mask": torch.ones(rows, text)}
        with FAKE, FlopCounterMode(display=False) as counter:
            call(given["rows"], torch.tensor(500.0), given["states"], None, added)
        counts.append(counter.get_total_flops())
    whole = counts[1] / 3
    return (counts[0] - whole) / 2 / whole
