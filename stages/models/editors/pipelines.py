"""Instruction-editing pipelines of diffusers. Each picture is edited alone and depends on no neighbour."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch.nn import functional

from stages.finite import NotFiniteError
from stages.models.device import default_device
from stages.models.diffusion.autoencoders import autoencoder
from stages.models.diffusion.families.flux_files import PATCH
from stages.models.diffusion.families.joint import packed
from stages.models.diffusion.trajectory import with_noise
from stages.models.editors import AfterStep, EditorConfig, InstructionEdit
from stages.models.editors.folder import KEY, check_class
from stages.models.weights import load_model
from stages.seeds import derive_seed


class PipelineEditor:
    """A pipeline of one of :data:`stages.models.editors.folder.PIPELINES`."""

    def __init__(self, config: EditorConfig) -> None:
        self.config = config
        self.pipeline = load_model(
            DiffusionPipeline,
            config,
            KEY,
            dtype=getattr(torch, config.dtype),
            low_cpu_mem_usage=False,
            safety_checker=None,
        ).to(default_device())
        self.name = type(self.pipeline).__name__
        check_class(self.name, f"{KEY}: {config.model}")
        self.pipeline.set_progress_bar_config(disable=True)
        self.vae, self.scheduler = autoencoder(self.pipeline.vae), self.pipeline.scheduler
        self.packed = "InstructPix2Pix" not in self.name
        """Whether its latents are tokens of 2 x 2, [1,N,4c], and not spatial."""

    @torch.no_grad()
    def edit(self, asked: InstructionEdit, after_step: AfterStep) -> np.ndarray:
        """See :class:`stages.models.editors.InstructionEditor`. SDXL's steps are not joined."""
        clean = self.vae.encode_picture(asked.picture)
        generator = torch.Generator().manual_seed(derive_seed(asked.seed, "editor"))
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        small = self._pooled(asked.mask, clean)
        clean, noise, small = (self._layout(each) for each in (clean, noise, small))

        def joined(pipeline: Any, step: int, timestep: Any, given: Mapping[str, Any]) -> dict[str, Any]:
            latents = given["latents"]
            known = self._at_level(clean, noise, step + 1).to(latents)
            return {"latents": after_step(step, pipeline.num_timesteps, latents, known, small.to(latents))}

        image = self.pipeline(
            prompt=asked.instruction,
            image=Image.fromarray(asked.picture),
            num_inference_steps=self.config.steps,
            latents=noise,
            output_type="np",
            **self._own(asked, joined),
        ).images[0]
        if not np.isfinite(image).all():
            raise NotFiniteError("edit", "the editor's picture")
        return np.round(image * 255).astype(np.uint8)

    def _own(self, asked: InstructionEdit, joined: Any) -> dict[str, Any]:
        """The arguments that one pipeline takes and another does not."""
        height, width = asked.picture.shape[:2]
        options: dict[str, Any] = {"guidance_scale": asked.guidance_scale}
        if self.name.startswith("QwenImageEdit"):
            # Without a negative prompt it draws without guidance; diffusers documents this empty one.
            options = {"true_cfg_scale": asked.guidance_scale, "negative_prompt": " "}
        if self.config.image_guidance_scale is not None:
            options["image_guidance_scale"] = self.config.image_guidance_scale
        if self.name != "StableDiffusionXLInstructPix2PixPipeline":
            options["callback_on_step_end"] = joined
        if self.name != "StableDiffusionInstructPix2PixPipeline":
            options |= {"height": height, "width": width}
        if self.name == "FluxKontextPipeline":
            # It would change the picture's size to one that it was trained on.
            options |= {"_auto_resize": False, "max_area": height * width}
        return options

    def _pooled(self, mask: np.ndarray, clean: torch.Tensor) -> torch.Tensor:
        """M [H,W] for latents [1,c,h,w], the largest value in each latent or token."""
        size = [side // (PATCH if self.packed else 1) for side in clean.shape[-2:]]
        pooled = functional.adaptive_max_pool2d(torch.from_numpy(mask)[None, None], size)
        return functional.interpolate(pooled, clean.shape[-2:]).to(clean).expand_as(clean)

    def _layout(self, values: torch.Tensor) -> torch.Tensor:
        """Values [1,c,h,w] as the pipeline has its latents."""
        return packed(values) if self.packed else values

    def _at_level(self, clean: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
        """The picture's latents before a step; after the last step, the clean ones."""
        if step == len(self.scheduler.timesteps):
            return clean
        return with_noise(self.scheduler, clean, noise, step)
