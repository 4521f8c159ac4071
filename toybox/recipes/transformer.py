"""The toybox's second text-to-image model: an SD3Transformer2DModel with its three text encoders."""

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from toybox.recipes.keep_editor import forget_origin
from toybox.recipes.scenes import LATENT_SIDE
from toybox.recipes.train_diffusion import text_config
from toybox.recipes.training import WEIGHTS, half

FOLDER = WEIGHTS / "transformer"
HEADS, HEAD_WIDTH, LAYERS = 5, 32, 6
CLIP_WIDTHS = (128, 64)
"""Of the two CLIP text encoders. The first begins with the weights of the U-Net's."""
T5_WIDTH = sum(CLIP_WIDTHS)
"""SD 3 fills CLIP's states up to T5's width; here nothing is filled up."""


def build_transformer() -> SD3Transformer2DModel:
    """5.4 M parameters. Modulation and output begin at 0: a block begins as the identity (Peebles & Xie)."""
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=LAYERS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=sum(CLIP_WIDTHS),
        pos_embed_max_size=LATENT_SIDE,
        qk_norm="rms_norm",
    )
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    modulations = [block.norm1.linear for block in transformer.transformer_blocks]
    modulations += [block.norm1_context.linear for block in transformer.transformer_blocks]
    for module in [*modulations, transformer.norm_out.linear, transformer.proj_out]:
        nn.init.zeros_(module.weight)
    return transformer


def build_clip(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(text_config(tokenizer, width))


def build_t5(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=T5_WIDTH,
        d_kv=32,
        d_ff=2 * T5_WIDTH,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return T5EncoderModel(config)


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


class Texts(nn.Module):
    """The three text encoders on tokens: states [n,T,d] and pooled vectors [n,p], as in SD 3's pipeline."""

    def __init__(self, clips: list[CLIPTextModelWithProjection], t5: T5EncoderModel) -> None:
        super().__init__()
        self.clips, self.t5 = nn.ModuleList(clips), t5

    def forward(
        self, clip_tokens: torch.Tensor, t5_tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = [clip(clip_tokens, output_hidden_states=True) for clip in self.clips]
        states = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        pooled = torch.cat([output.text_embeds for output in outputs], -1)
        return torch.cat([states, self.t5(t5_tokens)[0].to(states.dtype)], 1), pooled


def parts_of(transformer: SD3Transformer2DModel, texts: Texts) -> dict[str, Any]:
    """The trained parts by their names in SD 3's pipeline."""
    encoders = {"text_encoder": texts.clips[0], "text_encoder_2": texts.clips[1], "text_encoder_3": texts.t5}
    return {"transformer": transformer, **encoders}


def save(transformer, texts: Texts, tokenizer, words, vae, folder: Path = FOLDER) -> None:
    """Write a pipeline folder in diffusers' layout, in half precision."""
    vae = half(vae)
    vae.register_to_config(shift_factor=0.0)
    pipeline = StableDiffusion3Pipeline(
        **{name: half(part) for name, part in parts_of(transformer, texts).items()},
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=words,
        scheduler=build_scheduler(),
        vae=vae,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    forget_origin(folder / "vae" / "config.json")
