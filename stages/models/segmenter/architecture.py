"""Segment Anything built from its parts, with the sizes in a JSON file.

A weights folder holds ``config.json`` (:class:`Architecture`) and ``model.safetensors`` with the parameter
names of the published checkpoints.
"""

from functools import partial

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from stages.base import Section


class Encoder(Section):
    """The image encoder; the defaults are ViT-B."""

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11)
    window_size: int = 14


class Architecture(Section):
    """The sizes of a SAM; the defaults are the published ViT-B."""

    image_size: int = 1024
    patch_size: int = 16
    encoder: Encoder = Encoder()
    prompt_embed_dim: int = 256
    mask_in_chans: int = 16
    decoder_depth: int = 2
    decoder_mlp_dim: int = 2048
    decoder_num_heads: int = 8
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256


def build(architecture: Architecture) -> Sam:
    """A Sam with untrained weights."""
    a = architecture
    grid = a.image_size // a.patch_size
    encoder = ImageEncoderViT(
        img_size=a.image_size,
        patch_size=a.patch_size,
        out_chans=a.prompt_embed_dim,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        **a.encoder.model_dump(),
    )
    prompts = PromptEncoder(
        embed_dim=a.prompt_embed_dim,
        image_embedding_size=(grid, grid),
        input_image_size=(a.image_size, a.image_size),
        mask_in_chans=a.mask_in_chans,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(
            depth=a.decoder_depth,
            embedding_dim=a.prompt_embed_dim,
            mlp_dim=a.decoder_mlp_dim,
            num_heads=a.decoder_num_heads,
        ),
        transformer_dim=a.prompt_embed_dim,
        iou_head_depth=a.iou_head_depth,
        iou_head_hidden_dim=a.iou_head_hidden_dim,
    )
    return Sam(encoder, prompts, decoder)
