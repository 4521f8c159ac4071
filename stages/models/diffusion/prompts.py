"""Encoding prompts for the U-Net, with one text encoder (Stable Diffusion) or two (SDXL)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Segment:
    """A part of a prompt's states that one tokenizer's tokens make, from its first token on.

    ``tokenizer``: None if the states are not made of the prompt. ``length``: number of states, with padding.
    """

    tokenizer: Any
    length: int


@dataclass(frozen=True)
class Embeddings:
    """Encoded prompts: ``states`` [n,T,d], and for SDXL ``pooled`` [n,p] (None for Stable Diffusion)."""

    states: torch.Tensor
    pooled: torch.Tensor | None

    def repeat(self, times: int) -> "Embeddings":
        """Each prompt repeated ``times`` times in a row."""
        pooled = None if self.pooled is None else self.pooled.repeat_interleave(times, 0)
        return Embeddings(self.states.repeat_interleave(times, 0), pooled)

    def expand(self, rows: int) -> "Embeddings":
        """One prompt repeated for ``rows`` rows."""
        pooled = None if self.pooled is None else self.pooled.expand(rows, -1)
        return Embeddings(self.states.expand(rows, -1, -1), pooled)


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Concatenate encoded prompts."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Embeddings(torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None)


class PromptEncoder:
    """The tokenizers and text encoders of a pipeline."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.device = pipeline.device
        self.tokenizer = pipeline.tokenizer
        self._pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
        second = getattr(pipeline, "text_encoder_2", None)
        if second is not None:
            self._pairs.append((pipeline.tokenizer_2, second))
        for _, encoder in self._pairs:
            encoder.eval().requires_grad_(False)
        self.empty_is_zero = second is not None and pipeline.config.get("force_zeros_for_empty_prompt", True)
        """Whether the empty prompt is a row of zeros, as SDXL was trained."""
        self.empty = self._zeros() if self.empty_is_zero else self.encode([""])

    @property
    def context_length(self) -> int:
        """Largest number of tokens in a prompt, including start and end token."""
        return self.tokenizer.model_max_length

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The parts of a prompt's states: one, because both encoders of SDXL have the same tokens."""
        return (Segment(self.tokenizer, self.context_length),)

    def fits(self, prompt: str) -> bool:
        """Whether the prompt fits into the text encoders' context without truncation."""
        return len(self.tokenizer(prompt, truncation=False).input_ids) <= self.context_length

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Embeddings:
        """Encode prompts without gradients."""
        return self.encode_with_gradients(prompts)

    def encode_with_gradients(self, prompts: list[str]) -> Embeddings:
        """Encode prompts. The result has gradients if a text encoder is being trained.

        Stable Diffusion uses the last layer; SDXL uses the second-to-last layer of both encoders and the
        second encoder's projection."""
        outputs = []
        for tokenizer, encoder in self._pairs:
            encoded = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
            outputs.append(encoder(encoded.input_ids.to(self.device), output_hidden_states=True))
        if len(outputs) == 1:
            return Embeddings(outputs[0].last_hidden_state, None)
        states = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        return Embeddings(states, outputs[1].text_embeds)

    def _zeros(self) -> Embeddings:
        like = self.encode([""])
        assert like.pooled is not None
        return Embeddings(torch.zeros_like(like.states), torch.zeros_like(like.pooled))
