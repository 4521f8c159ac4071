"""Stable Diffusion and SDXL: a U-Net with self- and cross-attention, and classifier-free guidance."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.models.embeddings import get_timestep_embedding

from stages.models.diffusion.families import FamilyName
from stages.models.diffusion.families.base import Classic, Conditions
from stages.models.diffusion.memory import latent_multiple, pixels_per_latent
from stages.models.diffusion.prompts import Embeddings, PromptEncoder


class UNetFamily(Classic):
    """A U-Net and its text encoders; :class:`stages.models.diffusion.families.base.Family`."""

    name: FamilyName = "unet"

    def __init__(self, pipeline: DiffusionPipeline, dtype: torch.dtype) -> None:
        self.network: Any = pipeline.unet.to(memory_format=torch.channels_last)
        self.prompts = PromptEncoder(pipeline)
        self.dtype, self._scale = dtype, pixels_per_latent(pipeline.vae.config)

    @property
    def takes_guidance(self) -> bool:
        """No if the U-Net was distilled with its guidance (LCM)."""
        return self.network.config.time_cond_proj_dim is None

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels)

    @property
    def side(self) -> int:
        return int(self.network.config.sample_size)

    @property
    def multiple(self) -> int:
        return latent_multiple(self.network.config)

    def schedule(self, scheduler: Any, steps: int, latents: torch.Tensor) -> Mapping[str, Any]:
        return {"num_inference_steps": steps}

    def conditions(
        self,
        prompts: Embeddings,
        unwanted: Embeddings | None,
        guidance_scale: torch.Tensor,
        latents: torch.Tensor,
    ) -> Conditions:
        added, pooled = None, prompts.pooled
        if pooled is not None:
            if unwanted is not None and unwanted.pooled is not None:
                pooled = torch.cat([unwanted.pooled, pooled])
            added = {"text_embeds": pooled, "time_ids": self._time_ids(latents).expand(len(pooled), -1)}
        return Conditions(
            prompts.states,
            None if unwanted is None else unwanted.states,
            added,
            self.guidance_embedding(guidance_scale.to(latents.device)),
        )

    def guidance_embedding(self, guidance_scale: torch.Tensor) -> torch.Tensor | None:
        """Embedded guidance scale for a model distilled with guidance (Luo et al. 2023, LCM); else None."""
        width = self.network.config.time_cond_proj_dim
        if width is None:
            return None
        embedded = get_timestep_embedding(guidance_scale - 1, width, downscale_freq_shift=1, scale=1000)
        return embedded.to(self.dtype)

    def _time_ids(self, latents: torch.Tensor) -> torch.Tensor:
        """SDXL's size conditions: original size, crop offset and target size, for an uncropped picture."""
        height, width = (side * self._scale for side in latents.shape[-2:])
        return torch.tensor([[height, width, 0, 0, height, width]], device=latents.device, dtype=self.dtype)
