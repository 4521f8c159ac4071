"""A loaded text-to-image model: prompts to embeddings, seeds to noise, latents to pictures."""

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from stages.finite import finite_rows
from stages.models.device import default_device
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.prompts import Embeddings, PromptEncoder
from stages.models.diffusion.sampler import SCHEDULERS, Control, sample
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
            safety_checker=None,  # otherwise Stable Diffusion's would be downloaded and not used
            low_cpu_mem_usage=False,
        ).to(self.device)
        self.unet = pipeline.unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        if config.compile:
            self.unet = torch.compile(self.unet)
        self.vae = pipeline.vae.eval().requires_grad_(False)
        if self.vae.config.get("force_upcast") and self.dtype == torch.float16:
            self.vae.to(torch.float32)  # SDXL's VAE overflows in half precision
        self.prompts = PromptEncoder(pipeline)
        options = {"clip_sample": False} if config.sampler == "ddim" else {}
        self.scheduler = SCHEDULERS[config.sampler].from_config(pipeline.scheduler.config, **options)
        distilled = self.unet.config.time_cond_proj_dim is not None
        wanted = config.guidance_scale > 1 if guided is None else guided
        self.guided = wanted and not distilled

    def initial_latents(self, row_seeds: list[int]) -> torch.Tensor:
        """Gaussian noise [n,c,h,w] in float32; each row has its own CPU generator."""
        side = self.unet.config.sample_size
        shape = (1, self.unet.config.in_channels, side, side)
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
    ) -> torch.Tensor:
        """Denoise latents [n,c,h,w] from ``initial_latents``; one prompt and guidance scale [n] per row.

        ``row_seeds`` seed the noise added by some samplers. A source and its edits share one seed.
        """
        rows = len(latents)
        empty = self.prompts.empty.expand(rows)
        added = None
        if prompts.pooled is not None:
            pooled = prompts.pooled
            if self.guided and empty.pooled is not None:
                pooled = torch.cat([empty.pooled, pooled])
            added = {"text_embeds": pooled, "time_ids": self._time_ids().expand(len(pooled), -1)}
        return sample(
            self.unet,
            self.scheduler,
            latents,
            prompts.states,
            empty.states if self.guided else None,
            guidance_scale,
            self.config.steps,
            control,
            noise_seeds=[derive_seed(seed, "sampler") for seed in row_seeds],
            added=added,
            timestep_cond=self._guidance_embedding(guidance_scale),
        )

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Decode latents [n,c,h,w] to pictures, uint8 [n,H,W,3], and tell which are finite, bool [n].

        A picture is not finite if its latents or decoded values contain NaN or infinity, for example after an
        overflow in half precision. Its pixels are then black and must not be used.
        """
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        decoded = self.vae.decode(scaled).sample.float()
        finite = finite_rows(latents) & finite_rows(decoded)
        pixels = ((decoded.nan_to_num(-1).clamp(-1, 1) + 1) * 127.5).round().byte()
        return pixels.permute(0, 2, 3, 1).cpu().numpy(), finite

    def _time_ids(self) -> torch.Tensor:
        """SDXL's size conditions: original size, crop offset and target size, for an uncropped picture."""
        side = self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)
        return torch.tensor([[side, side, 0, 0, side, side]], device=self.device, dtype=self.dtype)

    def _guidance_embedding(self, guidance_scale: torch.Tensor) -> torch.Tensor | None:
        """Embedded guidance scale for a model distilled with guidance (Luo et al. 2023, LCM); else None."""
        width = self.unet.config.time_cond_proj_dim
        if width is None:
            return None
        embedded = get_timestep_embedding(
            guidance_scale.to(self.device) - 1, width, downscale_freq_shift=1, scale=1000
        )
        return embedded.to(self.dtype)
