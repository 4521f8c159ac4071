"""PixArt-Sigma: a transformer with self- and cross-attention and classifier-free guidance, by diffusion.

A prompt is read by T5, in lower case as the model was trained. The attention does not see its padding. The
published scheduler is multistep; samplers of one step are made from its noise levels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline

from stages.models.diffusion.families import FamilyName
from stages.models.diffusion.families.cross import CrossFamily, CrossNetwork
from stages.models.diffusion.families.joint import JointPrompts
from stages.models.diffusion.families.within import Within
from stages.models.diffusion.prompts import Embeddings, Segment

LENGTH = 300
"""Tokens of a prompt that T5 reads, as in diffusers' pipeline."""


class PixArtPrompts(JointPrompts):
    """T5 and its tokenizer."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.device, self.tokenizer, self.context_length = pipeline.device, pipeline.tokenizer, LENGTH
        self._encoder = pipeline.text_encoder.eval().requires_grad_(False)
        self.empty = self.encode([""])

    @property
    def segments(self) -> tuple[Segment, ...]:
        return (Segment(Within(self.tokenizer, _written, range), self.context_length),)

    def fits(self, prompt: str) -> bool:
        return super().fits(_written(prompt))

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Embeddings:
        """States [n,T,d], and which tokens are no padding [n,T]."""
        encoded = self.tokenizer(
            [_written(prompt) for prompt in prompts],
            padding="max_length",
            max_length=self.context_length,
            truncation=True,
            return_tensors="pt",
        )
        mask = encoded.attention_mask.to(self.device)
        return Embeddings(self._encoder(encoded.input_ids.to(self.device), mask)[0], mask=mask)


def _written(prompt: str) -> str:
    return prompt.lower().strip()


class PixArtNetwork(CrossNetwork):
    """The transformer, told no picture size, which models of one size were trained with."""

    def told(self, timestep: torch.Tensor) -> Mapping[str, Any]:
        return {"timestep": timestep, "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}


class PixArtFamily(CrossFamily):
    """Its transformer and text encoder; :class:`stages.models.diffusion.families.base.Family`."""

    name: FamilyName = "pixart"

    def __init__(self, pipeline: DiffusionPipeline, dtype: torch.dtype) -> None:
        self.network: Any = PixArtNetwork(pipeline.transformer)
        self.prompts = PixArtPrompts(pipeline)

    def schedule(self, scheduler: Any, steps: int, latents: torch.Tensor) -> Mapping[str, Any]:
        return {"num_inference_steps": steps}
