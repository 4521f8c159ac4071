"""A loaded text-to-image model: prompts to embeddings, seeds to noise, latents to pictures."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from stages.models.device import default_device
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.decoder import Decoder
from stages.models.diffusion.families import FamilyName, family_of, setting_problems
from stages.models.diffusion.families.base import Family
from stages.models.diffusion.families.flux import FluxFamily
from stages.models.diffusion.families.pixart import PixArtFamily
from stages.models.diffusion.families.qwen import QwenFamily
from stages.models.diffusion.families.sana import SanaFamily
from stages.models.diffusion.families.sd3 import SD3Family
from stages.models.diffusion.families.unet import UNetFamily
from stages.models.diffusion.families.zimage import ZImageFamily
from stages.models.diffusion.folder import left_out
from stages.models.diffusion.memory import most_pixels, size_problems
from stages.models.diffusion.prompts import Embeddings
from stages.models.diffusion.sampler import SCHEDULERS, Control, sample
from stages.models.diffusion.trajectory import Trajectory
from stages.models.weights import load_model
from stages.seeds import derive_seed

FAMILIES: Mapping[FamilyName, Callable[[Any, torch.dtype], Family]] = {
    "unet": UNetFamily,
    "flux": FluxFamily,
    "sd3": SD3Family,
    "qwen": QwenFamily,
    "zimage": ZImageFamily,
    "pixart": PixArtFamily,
    "sana": SanaFamily,
}
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "ddim": {"clip_sample": False},
    "flow_euler": {"stochastic_sampling": False},
}
"""Settings of a sampler's scheduler, whatever the model's files say."""


class Diffusion:
    """The parts of a pipeline, so that the sampling loop can be controlled.

    ``guided``: whether batches contain unconditional rows for classifier-free guidance. They do not if the
    guidance scale is at most 1, or if the model was distilled with guidance (LCM).
    """

    def __init__(self, config: DiffusionConfig, guided: bool | None = None) -> None:
        for logging in (diffusers_logging, transformers_logging):
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        self.config = config
        self.device = default_device()
        self.dtype = getattr(torch, config.dtype)
        pipeline = load_model(
            DiffusionPipeline,
            config,
            "diffusion.model",
            dtype=self.dtype,
            variant=config.variant,
            low_cpu_mem_usage=False,
            # otherwise Stable Diffusion's would be downloaded and not used
            **{"safety_checker": None, **left_out(config.path)},
        ).to(self.device)
        name = family_of(type(pipeline).__name__, f"diffusion.model: {config.model}")
        self.family: Family = FAMILIES[name](pipeline, self.dtype)
        network = self.family.network.eval().requires_grad_(False)
        self.family.network = torch.compile(network) if config.compile else network
        self.decoder = Decoder(pipeline.vae, config)
        self._check(name)
        self.prompts = self.family.prompts
        self.unwanted = self._unwanted() if self.family.takes_guidance else None
        """The prompt of the unconditional rows; None if the model never has such rows."""
        published = pipeline.scheduler.config
        options = {**_OPTIONS.get(config.sampler, {}), **self.family.scheduler_options(published)}
        self.scheduler = SCHEDULERS[config.sampler].from_config(published, **options)
        wanted = config.guidance_scale > 1 if guided is None else guided
        self.guided = wanted and self.family.takes_guidance

    def _unwanted(self) -> Embeddings:
        unwanted = self.config.negative_prompt
        if not self.prompts.fits(unwanted):
            raise ValueError(
                "diffusion.negative_prompt is longer than the model's text encoder reads "
                f"({self.prompts.context_length} tokens): shorten it"
            )
        return self.family.unwanted(unwanted)

    @property
    def unet(self) -> Any:
        """The network of a family with a U-Net, or what was put in its place."""
        return self.family.network

    @unet.setter
    def unet(self, network: Any) -> None:
        self.family.network = network

    @property
    def side(self) -> int:
        """The side in pixels of the pictures that the model was trained on."""
        return self.family.side * self.decoder.scale

    def initial_latents(self, row_seeds: list[int], size: tuple[int, int] | None = None) -> torch.Tensor:
        """Gaussian noise [n,c,h,w] in float32; each row has its own CPU generator.

        Args:
            row_seeds: the rows' seeds.
            size: height and width of the pictures in pixels; None: the model's own.
        """
        height, width = (pixels // self.decoder.scale for pixels in size or (self.side, self.side))
        shape = (1, self.family.channels, height, width)
        noise = []
        for seed in row_seeds:
            generator = torch.Generator().manual_seed(derive_seed(seed, "latents"))
            noise.append(torch.randn(shape, generator=generator))
        return torch.cat(noise).to(self.device)

    def sample(
        self,
        latents: torch.Tensor,
        prompts: Embeddings,
        guidance_scale: torch.Tensor,
        row_seeds: list[int],
        control: Control | None = None,
        start: int | None = None,
        steps: int | None = None,
    ) -> torch.Tensor:
        """Denoise latents [n,c,h,w] from ``initial_latents``; one prompt and guidance scale [n] per row.

        With ``start``, they are those before this step (:func:`stages.models.diffusion.sampler.sample`).
        ``row_seeds`` seed the noise added by some samplers. A source and its edits share one seed.
        ``steps`` replaces the section's.
        """
        steps = steps or self.config.steps
        unwanted = self.unwanted.expand(len(latents)) if self.guided and self.unwanted else None
        told = self.family.conditions(prompts, unwanted, guidance_scale, latents)
        return sample(
            self.family.network,
            self.scheduler,
            latents,
            told.states,
            told.unconditional,
            guidance_scale,
            steps,
            control,
            noise_seeds=[derive_seed(seed, "sampler") for seed in row_seeds],
            added=told.added,
            timestep_cond=told.guidance,
            schedule=self.family.schedule(self.scheduler, steps, latents),
            guided=self.family.guided,
            start=start,
        )

    def trajectory(self, pictures: np.ndarray, row_seeds: list[int]) -> Trajectory:
        """The latents of pictures uint8 [n,H,W,3] before each step, by one seed a picture."""
        clean = self.decoder.encode(pictures).to(self.device, torch.float32)
        steps = self.config.steps
        schedule = self.family.schedule(self.scheduler, steps, clean)
        return Trajectory(self.scheduler, clean, row_seeds, steps, schedule)

    def decode(self, latents: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Decode latents; see :meth:`stages.models.diffusion.decoder.Decoder.decode`."""
        return self.decoder.decode(latents)

    def _check(self, family: FamilyName) -> None:
        network = self.family.network.config
        most = most_pixels(network, self.decoder.vae.config)
        problems = [
            *setting_problems(self.config, family, network),
            *size_problems(self.config, self.family.multiple * self.decoder.scale, most),
        ]
        if problems:
            raise ValueError(problems[0])
