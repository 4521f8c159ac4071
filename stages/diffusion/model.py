"""A loaded text-to-image model: prompts to embeddings, seeds to latents, latents to pictures."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from stages.device import default_device
from stages.diffusion import DiffusionConfig
from stages.seeds import derive_seed


class Diffusion:
    """A Stable Diffusion pipeline taken apart, so that its denoising loop can be controlled."""

    def __init__(self, config: DiffusionConfig) -> None:
        for logging in (diffusers_logging, transformers_logging):
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        self.config = config
        self.device = default_device()
        self.dtype = getattr(torch, config.dtype)
        pipeline = StableDiffusionPipeline.from_pretrained(
            config.model,
            revision=config.revision,
            dtype=self.dtype,
            safety_checker=None,
            requires_safety_checker=False,
            local_files_only=Path(config.model).exists(),
        ).to(self.device)
        self.unet = pipeline.unet.eval().requires_grad_(False)
        self.vae = pipeline.vae.eval().requires_grad_(False)
        self.text_encoder = pipeline.text_encoder.eval().requires_grad_(False)
        self.tokenizer = pipeline.tokenizer
        if not isinstance(pipeline.scheduler, DDIMScheduler):
            pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        self.scheduler = pipeline.scheduler
        self.uncond = self.encode([""])[0]

    @property
    def context_length(self) -> int:
        """Tokens of a prompt, with the start and the end token."""
        return self.tokenizer.model_max_length

    def fits(self, prompt: str) -> bool:
        """Whether the text encoder sees the whole prompt."""
        return len(self.tokenizer(prompt, truncation=False).input_ids) <= self.context_length

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> torch.Tensor:
        """The text encoder's states [n, tokens, channels] of prompts."""
        encoded = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        return self.text_encoder(encoded.input_ids.to(self.device)).last_hidden_state

    def initial_latents(self, row_seeds: list[int]) -> torch.Tensor:
        """x_T [n,c,h,w] in float32: each row's noise from a CPU generator of its own."""
        side = self.unet.config.sample_size
        shape = (1, self.unet.config.in_channels, side, side)
        noise = []
        for seed in row_seeds:
            generator = torch.Generator().manual_seed(derive_seed(seed, "latents"))
            noise.append(torch.randn(shape, generator=generator))
        return torch.cat(noise).to(self.device) * self.scheduler.init_noise_sigma

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents [n,c,h,w] to pictures, uint8 [n,H,W,3]."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.dtype)
        decoded = self.vae.decode(scaled).sample.float().clamp(-1, 1)
        return ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
