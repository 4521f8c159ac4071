"""Diffusion pipelines of both families with random weights, saved as diffusers saves them."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from toybox.recipes.tokenizer import build_tokenizer

WIDTH, POOLED = 16, 8


def _unet(**options) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=options.pop("sample_size", 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        **options,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        force_upcast=True,
    )


def _text(tokenizer: CLIPTokenizer, width: int, model=CLIPTextModel):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=POOLED,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model(config)


def save_stable_diffusion(folder: Path, **unet) -> Path:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text(tokenizer, WIDTH),
        tokenizer=tokenizer,
        unet=_unet(cross_attention_dim=WIDTH, **unet),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_sdxl(
    folder: Path, tokenizer: CLIPTokenizer | None = None, variant: str | None = None, **unet
) -> Path:
    torch.manual_seed(0)
    tokenizer = tokenizer or build_tokenizer()
    StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_text(tokenizer, WIDTH),
        text_encoder_2=_text(tokenizer, WIDTH, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=_unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + POOLED,
            use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
            **unet,
        ),
        scheduler=DDIMScheduler(),
    ).save_pretrained(folder, variant=variant)
    return folder
