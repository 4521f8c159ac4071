"""Networks of the families whose held edits can be computed in their regions, and what they are told."""

import torch

from stages.models.diffusion.families import flux_attention, qwen_attention, zimage_network
from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.families.qwen import QwenFamily, QwenNetwork
from stages.models.diffusion.families.sd3 import SD3Network
from stages.models.diffusion.families.zimage_files import MULTIPLE
from stages.models.diffusion.families.zimage_network import LEARNED, READ, ZImageNetwork
from stages.models.diffusion.sampler import classifier_free
from tests.stages.test_joint_attention import T, peaky
from tests.stages.tiny_chat_pipelines import TEXT_WIDTH, qwen_transformer, zimage_transformer
from tests.stages.tiny_pipelines import POOLED, WIDTH, flux_transformer, sd3_transformer

NETWORKS = {
    "flux": lambda: FluxNetwork(peaky(flux_transformer(guidance=True))),
    "sd3": lambda: SD3Network(peaky(sd3_transformer(False))),
    "sd35": lambda: SD3Network(peaky(sd3_transformer(True))),
    "qwen": lambda: QwenNetwork(peaky(qwen_transformer())),
    "zimage": lambda: ZImageNetwork(peaky(zimage_transformer())),
}
WIDTHS = {
    FluxNetwork: (WIDTH, WIDTH),
    SD3Network: (3 * WIDTH, 2 * POOLED),
    QwenNetwork: (TEXT_WIDTH, 1),
    ZImageNetwork: (TEXT_WIDTH, 1),
}
"""Of the states of a prompt's tokens, and of its pooled vector, which the last two do not look at."""


def turn_exactly(monkeypatch) -> None:
    """Have queries and keys turned in float64.

    Most families turn them in float32, where a last bit of float64 becomes one of float32.
    """

    def turned(x, tables, sequence_dim):
        cos, sin = (table[None, :, None].double() for table in tables)
        real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
        return x * cos + torch.stack([-imaginary, real], -1).flatten(-2) * sin

    def turned_as_complex(x, table):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * table).flatten(3)

    monkeypatch.setattr(flux_attention, "apply_rotary_emb", turned)
    monkeypatch.setattr(
        zimage_network, "_turned", lambda heads, table: turned_as_complex(heads, table[:, :, None])
    )
    monkeypatch.setattr(
        qwen_attention,
        "apply_rotary_emb_qwen",
        lambda heads, table, use_real: turned_as_complex(heads, table[:, None]),
    )


def guided(network) -> bool:
    return not isinstance(network, FluxNetwork)


def conditions(network, seeds: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """States of prompts and what else they tell, one for each seed; captions have different lengths."""
    padded = isinstance(network, ZImageNetwork)
    longest, room = (MULTIPLE, MULTIPLE + 8) if padded else (T, T)
    rows, (width, pooled_width) = [], WIDTHS[type(network)]
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        shapes = ((room, width), (pooled_width,))
        rows.append([torch.randn(shape, generator=generator) for shape in shapes])
    states, pooled = (torch.stack(each).to(network.dtype) for each in zip(*rows, strict=True))
    mask = torch.arange(room) < torch.tensor([longest - seed % 3 for seed in seeds])[:, None]
    if padded:  # Z-Image's captions end with learned tokens, and all have one room here
        mask = torch.where(mask, READ, LEARNED * (torch.arange(room) < MULTIPLE))
    return states, {"pooled": pooled, "mask": mask}


def by_guidance(network, velocity: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The velocity of both halves as one, by the family's rule."""
    rule = classifier_free
    if isinstance(network, QwenNetwork):
        rule = QwenFamily.__new__(QwenFamily).guided
    return rule(*velocity.chunk(2), scale[:, None, None, None])
