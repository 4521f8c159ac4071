"""Pipelines of transformers with cross-attention, small and random, saved as diffusers saves them."""

from inspect import signature
from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
)
from transformers import Gemma2Config, Gemma2Model, T5Config, T5EncoderModel

from tests.stages.tiny_pipelines import sentencepiece, tiny_vae

TEXT_WIDTH = 32


def pixart_transformer() -> PixArtTransformer2DModel:
    """It predicts variances too, as the published ones."""
    return PixArtTransformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=TEXT_WIDTH,
        use_additional_conditions=False,
    )


def save_pixart(folder: Path) -> Path:
    torch.manual_seed(0)
    spiece = sentencepiece()
    shape = {"d_model": TEXT_WIDTH, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    PixArtSigmaPipeline(
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02),
        vae=tiny_vae(scaling_factor=0.13025),
        text_encoder=T5EncoderModel(T5Config(vocab_size=len(spiece), **shape)),
        tokenizer=spiece,
        transformer=pixart_transformer(),
    ).save_pretrained(folder)
    return folder


def sana_transformer(**options) -> SanaTransformer2DModel:
    """Sana; with ``qk_norm``, Sana 1.5."""
    return SanaTransformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        num_attention_heads=4,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=TEXT_WIDTH,
        **options,
    )


def save_sana(folder: Path, **transformer) -> Path:
    torch.manual_seed(0)
    lines = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    words = {word.strip("-,.:'") for word in " ".join(lines).split()} - {"a", "red"}
    tokenizer = sentencepiece("<bos> $A", "<bos>", tuple(sorted(words - {""})))
    encoder = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
    )
    levels = {"block_out_channels": (8, 8), "layers_per_block": (1, 1), "qkv_multiscales": ((), ())}
    SanaPipeline(
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        vae=AutoencoderDC(
            latent_channels=4,
            attention_head_dim=4,
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
            scaling_factor=0.41407,
            **{f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in levels.items()},
        ),
        text_encoder=Gemma2Model(encoder),
        tokenizer=tokenizer,
        transformer=sana_transformer(**transformer),
    ).save_pretrained(folder)
    return folder
