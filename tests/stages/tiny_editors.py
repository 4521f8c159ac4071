"""Pipelines that edit by instructions, small and random, saved as diffusers saves them."""

from pathlib import Path

from diffusers import (
    DiffusionPipeline,
    FluxKontextPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
)

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
