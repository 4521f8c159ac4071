"""An editor's networks together: conditions, latents of pictures, edited pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editor.model.task_table import TaskTable
from pipeline.errors import StageError
from stages.models.diffusion.prompts import Embeddings, PromptEncoder
from stages.seeds import derive_seed


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance scales (InstructPix2Pix, equation 3) and the number of denoising steps.

    A text scale of 1 turns guidance off, and then the image scale has no effect.
    """

    text: float = 5.0
    image: float = 1.5
    steps: int = 50


class EditorNetwork:
    """The pipeline of diffusers, and the table of task vectors."""

    def __init__(self, pipeline: Any, table: TaskTable) -> None:
        self.pipeline = pipeline
        self.table = table.eval().requires_grad_(False)
        self.unet = pipeline.unet.eval().requires_grad_(False)
        self.vae = pipeline.vae.eval().requires_grad_(False)
        self.prompts = PromptEncoder(pipeline)
        self.scheduler = pipeline.scheduler

    def to(self, device: torch.device) -> "EditorNetwork":
        """Move everything to a device."""
        self.pipeline.to(device)
        return EditorNetwork(self.pipeline, self.table.to(device))

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def scale(self) -> int:
        """Pixels per latent along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def multiple(self) -> int:
        """Sides of pictures must be multiples of this number of pixels, one latent. The U-Net takes any."""
        return self.scale

    @property
    def side(self) -> int:
        """The side in pixels of the pictures that the text-to-image model was trained on."""
        return int(self.unet.config.sample_size) * self.scale

    def conditions(self, texts: Sequence[str], vectors: Tensor) -> Embeddings:
        """What the U-Net attends to: encoded texts [n,T,d] and then the task vectors [n,d]: [n,T+1,d].

        An empty text is the text-free condition of classifier-free guidance. The result has gradients
        where the text encoder or the vectors have them.
        """
        encoded = self.prompts.encode_with_gradients(list(texts))
        states, pooled = encoded.states, encoded.pooled
        if self.prompts.empty_is_zero:
            present = torch.tensor([bool(text) for text in texts], device=states.device, dtype=states.dtype)
            states = states * present[:, None, None]
            pooled = None if pooled is None else pooled * present[:, None]
        return Embeddings(torch.cat([states, vectors[:, None].to(states)], 1), pooled)

    def vectors(self, rows: Sequence[int]) -> Tensor:
        """Task vectors [n,d] of rows of the table."""
        return self.table(torch.tensor(rows, device=self.device))

    def added_conditions(self, pooled: Tensor | None, height: int, width: int) -> dict[str, Tensor] | None:
        """SDXL's further conditions, for uncropped pictures of ``height`` x ``width`` pixels."""
        if pooled is None:
            return None
        sizes = pooled.new_tensor([height, width, 0, 0, height, width])
        return {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}

    @torch.no_grad()
    def encode(self, pictures: np.ndarray) -> Tensor:
        """Latents float32 [n,c,h,w] of pictures uint8 [n,H,W,3]: the autoencoder's mean, not scaled."""
        pixels = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).to(self.device)
        scaled = pixels.to(self.vae.dtype) / 127.5 - 1
        return self.vae.encode(scaled).latent_dist.mode().float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Pictures uint8 [n,H,W,3] of latents from :meth:`encode`."""
        decoded = self.vae.decode(latents.to(self.device, self.vae.dtype)).sample.float()
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
        return pixels.permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def edit(
        self,
        latents: Tensor,
        texts: Sequence[str],
        vectors: Tensor,
        guidance: Guidance,
        seeds: Sequence[int],
    ) -> np.ndarray:
        """Edit pictures with the InstructPix2Pix pipeline of diffusers.

        Args:
            latents: the input pictures, from :meth:`encode` [n,c,h,w].
            texts: one instruction per picture.
            vectors: task vectors [n,d].
            seeds: one seed per picture, for its noise on the CPU.

        Returns:
            Edited pictures, uint8 [n,H,W,3].

        Raises:
            StageError: a picture is not finite.
        """
        full, empty = self.conditions(texts, vectors), self.conditions([""] * len(texts), vectors)
        options: dict[str, Any] = {"prompt_embeds": full.states, "negative_prompt_embeds": empty.states}
        if full.pooled is not None and empty.pooled is not None:
            options |= {"pooled_prompt_embeds": full.pooled, "negative_pooled_prompt_embeds": empty.pooled}
            options |= {"height": latents.shape[-2] * self.scale, "width": latents.shape[-1] * self.scale}
        noise = [
            torch.randn(
                latents.shape[1:], generator=torch.Generator().manual_seed(derive_seed(seed, "editor"))
            )
            for seed in seeds
        ]
        images = self.pipeline(
            image=latents.to(self.unet.dtype),
            latents=torch.stack(noise).to(self.device, self.unet.dtype),
            num_inference_steps=guidance.steps,
            guidance_scale=guidance.text,
            image_guidance_scale=guidance.image,
            output_type="np",
            **options,
        ).images
        if not np.isfinite(images).all():
            raise StageError(
                "the editor's picture is not finite: its weights, or their precision, do not fit"
            )
        return (images * 255).round().astype(np.uint8)
