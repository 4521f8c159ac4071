"""A loaded text-to-image model: prompts to embeddings, seeds to noise, latents to pictures."""

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from stages.models.device import default_device
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.decoder import Decoder
from stages.models.diffusion.memory import latent_multiple, size_problems
from stages.models.diffusion.prompts import Embeddings, PromptEncoder
from stages.models.diffusion.sampler import SCHEDULERS, Control, sample
from stages.models.diffusion.trajectory import Trajectory
from stages.models.weights import load_model
from stages.seeds import derive_seed


class Diffusion:
    """The parts of a Stable Diffusion or SDXL pipeline, so that the sampling loop can be controlled.

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
            safety_checker=None,  # otherwise Stable Diffusion's would be downloaded and not used
            low_cpu_mem_usage=False,
        ).to(self.device)
        self.unet = pipeline.unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        if config.compile:
            self.unet = torch.compile(self.unet)
        self.decoder = Decoder(pipeline.vae, config)
        self._check_sizes()
        self.prompts = PromptEncoder(pipeline)
        if not self.prompts.fits(config.negative_prompt):
            raise ValueError(
                "diffusion.negative_prompt is longer than the model's text encoder reads "
                f"({self.prompts.context_length} tokens): shorten it"
            )
        self.unwanted = (
            self.prompts.encode([config.negative_prompt]) if config.negative_prompt else self.prompts.empty
        )
        """The prompt of the unconditional rows."""
        options = {"clip_sample": False} if config.sampler == "ddim" else {}
        self.scheduler = SCHEDULERS[config.sampler].from_config(pipeline.scheduler.config, **options)
        distilled = self.unet.config.time_cond_proj_dim is not None
        wanted = config.guidance_scale > 1 if guided is None else guided
        self.guided = wanted and not distilled

    @property
    def side(self) -> int:
        """The side in pixels of the pictures that the model was trained on."""
        return int(self.unet.config.sample_size) * self.decoder.scale

    def initial_latents(self, row_seeds: list[int], size: tuple[int, int] | None = None) -> torch.Tensor:
        """Gaussian noise [n,c,h,w] in float32; each row has its own CPU generator.

        Args:
            row_seeds: the rows' seeds.
            size: height and width of the pictures in pixels; None: the model's own.
        """
        height, width = (pixels // self.decoder.scale for pixels in size or (self.side, self.side))
        shape = (1, self.unet.config.in_channels, height, width)
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
        rows = len(latents)
        empty = self.unwanted.expand(rows)
        added = None
        if prompts.pooled is not None:
            pooled = prompts.pooled
            if self.guided and empty.pooled is not None:
                pooled = torch.cat([empty.pooled, pooled])
            added = {"text_embeds": pooled, "time_ids": self._time_ids(latents).expand(len(pooled), -1)}
        return sample(
            self.unet,
            self.scheduler,
            latents,
            prompts.states,
            empty.states if self.guided else None,
            guidance_scale,
            steps or self.config.steps,
            control,
            noise_seeds=[derive_seed(seed, "sampler") for seed in row_seeds],
            added=added,
            timestep_cond=self._guidance_embedding(guidance_scale),
            start=start,
        )

    def trajectory(self, pictures: np.ndarray, row_seeds: list[int]) -> Trajectory:
        """The latents of pictures uint8 [n,H,W,3] before each step, by one seed a picture."""
        clean = self.decoder.encode(pictures).to(self.device, torch.float32)
        return Trajectory(self.scheduler, clean, row_seeds, self.config.steps)

    def decode(self, latents: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Decode latents; see :meth:`stages.models.diffusion.decoder.Decoder.decode`."""
        return self.decoder.decode(latents)

    def _check_sizes(self) -> None:
        multiple = latent_multiple(self.unet.config) * self.decoder.scale
        for problem in size_problems(self.config, multiple):
            raise ValueError(problem)

    def _time_ids(self, latents: torch.Tensor) -> torch.Tensor:
        """SDXL's size conditions: original size, crop offset and target size, for an uncropped picture."""
        height, width = (side * self.decoder.scale for side in latents.shape[-2:])
        return torch.tensor([[height, width, 0, 0, height, width]], device=self.device, dtype=self.dtype)

    def _guidance_embedding(self, guidance_scale: torch.Tensor) -> torch.Tensor | None:
        """Embedded guidance scale for a model distilled with guidance (Luo et al. 2023, LCM); else None."""
        width = self.unet.config.time_cond_proj_dim
        if width is None:
            return None
        embedded = get_timestep_embedding(
            guidance_scale.to(self.device) - 1, width, downscale_freq_shift=1, scale=1000
        )
        return embedded.to(self.dtype)
