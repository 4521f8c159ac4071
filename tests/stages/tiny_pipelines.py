"""Diffusion pipelines of all families with random weights, saved as diffusers saves them."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

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


def tiny_vae(latent_channels: int = 4, **options) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=16,
        force_upcast=True,
        **options,
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
        vae=tiny_vae(),
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
        vae=tiny_vae(),
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


_WORDS = ("a", "red", "blue", "car", "ball", "on")


def sentencepiece(
    single: str = "$A </s>", special: str = "</s>", words: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """A tokenizer as T5's: a token begins with the space before it, and the prompt ends with </s>.

    ``single``: the form of a prompt, with one special token. ``words``: further words of one token.
    """
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["\u2581", *letters, *(f"\u2581{word}" for word in (*_WORDS, *words))]
    vocabulary = [("<pad>", 0.0), (special, 0.0), ("<unk>", 0.0), *((piece, -1.0) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[(special, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        **{"eos_token" if special == "</s>" else "bos_token": special},
        unk_token="<unk>",
        model_max_length=32,
    )


def flux_transformer(guidance: bool = False) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )


def save_flux(folder: Path, guidance: bool = False, **scheduler) -> Path:
    """FLUX.1 dev with ``guidance``, else schnell: as theirs, dev's noise levels are shifted by size."""
    torch.manual_seed(0)
    clip, t5 = build_tokenizer(), sentencepiece()
    shape = {"d_model": WIDTH, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    scheduler = {"shift": 3.0 if guidance else 1.0, "use_dynamic_shifting": guidance, **scheduler}
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**scheduler),
        vae=tiny_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_text(clip, WIDTH),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=len(t5), **shape)),
        tokenizer_2=t5,
        transformer=flux_transformer(guidance),
    ).save_pretrained(folder)
    return folder


def sd3_transformer(dual: bool = True) -> SD3Transformer2DModel:
    """SD 3.5 with ``dual``: norms of queries and keys, a second attention in two blocks; else SD 3."""
    return SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * POOLED,
        pos_embed_max_size=24,
        dual_attention_layers=(0, 1) if dual else (),
        qk_norm="rms_norm" if dual else None,
    )


def save_sd3(folder: Path, dual: bool = True, t5: bool = True, **scheduler) -> Path:
    """SD 3.5 with ``dual``, else SD 3; its text encoder T5 can be left out."""
    torch.manual_seed(0)
    clip, spiece = build_tokenizer(), sentencepiece()
    shape = {"d_model": 3 * WIDTH, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
        vae=tiny_vae(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=_text(clip, WIDTH, CLIPTextModelWithProjection),
        tokenizer=clip,
        text_encoder_2=_text(clip, WIDTH, CLIPTextModelWithProjection),
        tokenizer_2=clip,
        text_encoder_3=T5EncoderModel(T5Config(vocab_size=len(spiece), **shape)) if t5 else None,
        tokenizer_3=spiece if t5 else None,
        transformer=sd3_transformer(dual),
    ).save_pretrained(folder)
    return folder
