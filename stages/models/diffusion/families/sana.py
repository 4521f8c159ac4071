"""Sana: a transformer with linear self-attention and cross-attention, by flow matching in deep latents.

Guidance is classifier-free. A prompt is read by Gemma 2, in lower case, after an instruction to describe a
picture; of its states the first and the last 299 are used, so that only the instruction's last token is among
them. The prompt of unconditional rows is read alone. The attention does not see padding. A latent is 32 x 32
pixels. The published scheduler is multistep; flow Euler takes its noise levels.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, SanaPipeline

from stages.models.diffusion.families import FamilyName
from stages.models.diffusion.families.cross import CrossFamily, CrossNetwork
from stages.models.diffusion.families.joint import JointPrompts
from stages.models.diffusion.families.within import Within
from stages.models.diffusion.prompts import Embeddings, Segment

LENGTH = 300
"""Tokens of a prompt that take part in the attention, as in diffusers' pipeline."""


class SanaPrompts(JointPrompts):
    """Gemma 2 and its tokenizer."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.device, self.tokenizer, self.context_length = pipeline.device, pipeline.tokenizer, LENGTH
        self._encoder = pipeline.text_encoder.eval().requires_grad_(False)
        lines = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
        self._instruction = "\n".join(lines)
        self._before = len(self.tokenizer.encode(self._instruction))
        self.empty = self.alone("")

    @property
    def segments(self) -> tuple[Segment, ...]:
        """One: the start token, the instruction's last token, and the prompt."""
        read = Within(self.tokenizer, self._written, lambda tokens: [0, *range(self._before - 1, tokens)])
        return (Segment(read, LENGTH),)

    def fits(self, prompt: str) -> bool:
        return len(self.tokenizer(self._written(prompt)).input_ids) <= self._before + LENGTH - 2

    def encode(self, prompts: list[str]) -> Embeddings:
        """States [n,T,d] of prompts after the instruction, and which tokens are no padding [n,T]."""
        whole = self._encode([self._written(prompt) for prompt in prompts], self._before + LENGTH - 2)
        kept = [0, *range(1 - LENGTH, 0)]
        assert whole.mask is not None
        return Embeddings(whole.states[:, kept], mask=whole.mask[:, kept])

    def alone(self, prompt: str) -> Embeddings:
        """The same for one prompt without the instruction."""
        return self._encode([prompt.lower().strip()], LENGTH)

    def _written(self, prompt: str) -> str:
        return self._instruction + prompt.lower().strip()

    @torch.no_grad()
    def _encode(self, texts: list[str], length: int) -> Embeddings:
        encoded = self.tokenizer(
            texts,
            padding="max_length",
            max_length=length,
            truncation=True,
            padding_side="right",
            return_tensors="pt",
        )
        mask = encoded.attention_mask.to(self.device)
        return Embeddings(self._encoder(encoded.input_ids.to(self.device), mask)[0], mask=mask)


class SanaNetwork(CrossNetwork):
    """The transformer."""

    linear = True

    def told(self, timestep: torch.Tensor) -> Mapping[str, Any]:
        return {"timestep": timestep * self.config.timestep_scale}


class SanaFamily(CrossFamily):
    """Its transformer and text encoder; :class:`stages.models.diffusion.families.base.Family`."""

    name: FamilyName = "sana"

    def __init__(self, pipeline: DiffusionPipeline, dtype: torch.dtype) -> None:
        self.network: Any = SanaNetwork(pipeline.transformer)
        self.prompts = SanaPrompts(pipeline)

    def unwanted(self, prompt: str) -> Embeddings:
        return self.prompts.alone(prompt)

    def scheduler_options(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The shift has another name in the published scheduler's configuration."""
        return {"shift": config["flow_shift"]} if "flow_shift" in config else {}

    def schedule(self, scheduler: Any, steps: int, latents: torch.Tensor) -> Mapping[str, Any]:
        """The published scheduler's noise levels, before its shift: even, and not quite from 1."""
        least = 1 / scheduler.config.num_train_timesteps
        return {"sigmas": 1 - np.linspace(least, 1, steps + 1)[:-1]}
