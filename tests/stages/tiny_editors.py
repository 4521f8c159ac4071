"""Pipelines that edit by instructions, small and random, saved as diffusers saves them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
)
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

from tests.stages.tiny_chat_pipelines import byte_bpe, qwen_transformer, qwen_vae, qwen_vl
from tests.stages.tiny_pipelines import save_flux, save_sdxl, save_stable_diffusion


def _saved_again(folder: Path, kind: type[DiffusionPipeline], **others) -> Path:
    """Make the pipeline in a folder one of another class with the same parts."""
    made = DiffusionPipeline.from_pretrained(folder)
    parts = {name: part for name, part in made.components.items() if part is not None}
    kind(**parts, **others).save_pretrained(folder)
    return folder


def save_instruct_pix2pix(folder: Path) -> Path:
    """Its U-Net reads the picture's latents beside the noisy ones."""
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    made = save_stable_diffusion(folder, in_channels=8)
    return _saved_again(made, StableDiffusionInstructPix2PixPipeline, **none)


def save_sdxl_instruct_pix2pix(folder: Path) -> Path:
    return _saved_again(save_sdxl(folder, in_channels=8), StableDiffusionXLInstructPix2PixPipeline)


def save_kontext(folder: Path) -> Path:
    """FLUX.1 Kontext has the parts of FLUX.1 and reads the picture's tokens behind its own."""
    return _saved_again(save_flux(folder, guidance=True), FluxKontextPipeline)


_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def save_qwen_edit(folder: Path, kind: type[DiffusionPipeline]) -> Path:
    """Qwen-Image-Edit, or the later one: Qwen-Image whose text encoder sees the picture too."""
    torch.manual_seed(0)
    tokenizer = byte_bpe()
    tokenizer.add_special_tokens({"additional_special_tokens": [*_VISION]})
    start, end, image, video = tokenizer.convert_tokens_to_ids([*_VISION])
    tokens = {"vision_start_token_id": start, "vision_end_token_id": end}
    tokens |= {"image_token_id": image, "video_token_id": video}
    kind(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=qwen_vae(),
        text_encoder=qwen_vl(len(tokenizer), **tokens),
        tokenizer=tokenizer,
        processor=Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor()),
        transformer=qwen_transformer(),
    ).save_pretrained(folder)
    return folder


@contextmanager
def qwen_edit_reads_pictures_of(side: int) -> Iterator[None]:
    """Qwen-Image-Edit scales a picture that it reads to a megapixel: too many tokens for a test."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
            scaled = module.calculate_dimensions
            patch.setattr(
                module, "calculate_dimensions", lambda area, ratio, own=scaled: own(side * side, ratio)
            )
        yield
