"""How each family is drawn, by us and by diffusers' own pipeline, small and random."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtSigmaPipeline, QwenImagePipeline, SanaPipeline, ZImagePipeline

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.model import Diffusion
from tests.stages.tiny_chat_pipelines import save_qwen, save_zimage
from tests.stages.tiny_cross_pipelines import save_pixart, save_sana

PROMPTS = ["a red car on a beach", "a blue ball"]
STEPS = 4
SIZE = (16, 24)


@dataclass(frozen=True)
class Kind:
    """One family.

    ``pipeline`` draws PROMPTS from given noise: (folder, model, noise, output_type) to latents or pictures.
    ``guidance``: of the published model. ``refused``: settings that do not suit it, and the message.
    """

    save: Callable[..., Path]
    pipeline: Callable[[Path, Diffusion, torch.Tensor, str], Any]
    sampler: str = "flow_euler"
    guidance: float = 4.0
    size: tuple[int, int] = SIZE
    scale: int = 2
    channels: int = 4
    keys: dict[str, Any] = field(default_factory=dict)


def _settings(model: Diffusion, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "height": size[0],
        "width": size[1],
        "num_inference_steps": model.config.steps,
    }


def _by_qwen(folder: Path, model: Diffusion, noise: torch.Tensor, output_type: str):
    pipeline = QwenImagePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        PROMPTS,
        negative_prompt=[model.config.negative_prompt] * len(PROMPTS),
        latents=QwenImagePipeline._pack_latents(noise, *noise.shape),
        true_cfg_scale=model.config.guidance_scale,
        output_type=output_type,
        **_settings(model, SIZE),
    ).images
    if output_type != "latent":
        return drawn
    return QwenImagePipeline._unpack_latents(drawn, *SIZE, vae_scale_factor=2)[:, :, 0]


def _by_zimage(folder: Path, model: Diffusion, noise: torch.Tensor, output_type: str):
    pipeline = ZImagePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        list(PROMPTS),  # it writes into the list
        negative_prompt=[model.config.negative_prompt] * len(PROMPTS),
        latents=noise,
        guidance_scale=max(0, model.config.guidance_scale - 1),  # it counts from 0
        output_type=output_type,
        **_settings(model, SIZE),
    ).images


def _by_pixart(folder: Path, model: Diffusion, noise: torch.Tensor, output_type: str):
    pipeline = PixArtSigmaPipeline.from_pretrained(folder)
    pipeline.scheduler = type(model.scheduler).from_config(model.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        PROMPTS,
        negative_prompt=model.config.negative_prompt,
        latents=noise,
        guidance_scale=model.config.guidance_scale,
        output_type=output_type,
        clean_caption=False,
        use_resolution_binning=False,
        **_settings(model, SIZE),
    ).images


def _by_sana(folder: Path, model: Diffusion, noise: torch.Tensor, output_type: str):
    """With flow Euler at the noise levels of its own scheduler; its sides are multiples of 32."""
    pipeline = SanaPipeline.from_pretrained(folder)
    pipeline.scheduler = type(model.scheduler).from_config(model.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    settings = _settings(model, KINDS["sana"].size)
    levels = model.family.schedule(model.scheduler, settings["num_inference_steps"], noise)["sigmas"]
    return pipeline(
        PROMPTS,
        sigmas=list(levels),
        negative_prompt=model.config.negative_prompt,
        latents=noise,
        guidance_scale=max(1, model.config.guidance_scale),
        output_type=output_type,
        use_resolution_binning=False,
        **settings,
    ).images


KINDS = {
    "qwen": Kind(save_qwen, _by_qwen),
    "zimage": Kind(save_zimage, _by_zimage),
    "sana": Kind(save_sana, _by_sana, size=(32, 64)),
    "pixart": Kind(save_pixart, _by_pixart, sampler="ddim"),
}


def loaded(kind: str, folder: Path, **keys) -> Diffusion:
    own = KINDS[kind]
    settings = {"sampler": own.sampler, "steps": STEPS, "guidance_scale": own.guidance, **keys}
    return Diffusion(DiffusionConfig(model=str(folder), height=own.size[0], width=own.size[1], **settings))


def drawn(model: Diffusion, prompts=PROMPTS, seeds=(1, 2)) -> torch.Tensor:
    """Latents of prompts."""
    guidance = torch.full((len(prompts),), model.config.guidance_scale)
    noise = model.initial_latents(list(seeds), (model.config.height, model.config.width))
    return model.sample(noise, model.prompts.encode(list(prompts)), guidance, list(seeds))
