"""Z-Image: a transformer with joint attention over text and picture in one stream, by flow matching.

Guidance is classifier-free; the turbo model is drawn without. A prompt is read by Qwen3 within its chat
template. The transformer pads both text and picture to multiples of 32 by learned tokens, which are attended.
A picture's positions begin after its text's padding, so captions of one row are padded alike: else an edit's
queries and its source's keys would be turned against each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import DiffusionPipeline

from stages.models.diffusion.families import FamilyName
from stages.models.diffusion.families.base import Masked
from stages.models.diffusion.families.chat import ChatPrompts
from stages.models.diffusion.families.flux_files import PATCH, SIDE
from stages.models.diffusion.families.joint import even_levels
from stages.models.diffusion.families.zimage_files import MULTIPLE
from stages.models.diffusion.families.zimage_network import READ, ZImageNetwork
from stages.models.diffusion.prompts import Embeddings


class ZImagePrompts(ChatPrompts):
    """Qwen3, as an assistant that is about to think."""

    layer = -2

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        if pipeline.tokenizer.chat_template is None:
            raise ValueError("diffusion.model: its tokenizer has no chat template")
        super().__init__(pipeline.tokenizer, pipeline.text_encoder)

    def written(self, prompt: str) -> str:
        said = [{"role": "user", "content": prompt}]
        return self.tokenizer.apply_chat_template(
            said, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )

    def room(self, prompt: str) -> int:
        """The tokens of a prompt, padded to a multiple of 32."""
        return -(-len(self.tokenizer(self.written(prompt)).input_ids) // MULTIPLE) * MULTIPLE

    def encode(self, prompts: list[str], pairs: Sequence[tuple[str, ...]] | None = None) -> Embeddings:
        """States [n,T,d] and what their tokens are [n,T]: READ, LEARNED for padding that is attended, or 0.

        Args:
            prompts: n of them.
            pairs: for each, the captions that are padded alike; None: each has the room of its own.
        """
        encoded = super().encode(prompts)
        assert encoded.mask is not None
        rooms = [max(self.room(each) for each in pair) for pair in pairs or [(each,) for each in prompts]]
        inside = torch.arange(self.context_length) < torch.tensor(rooms)[:, None]
        kinds = inside.to(torch.uint8).to(encoded.mask.device)
        return replace(encoded, mask=torch.where(encoded.mask, READ, kinds))


class ZImageFamily(Masked):
    """Its transformer and text encoder; :class:`stages.models.diffusion.families.base.Family`."""

    takes_guidance, multiple, side = True, PATCH, SIDE

    name: FamilyName = "zimage"

    def __init__(self, pipeline: DiffusionPipeline, dtype: torch.dtype) -> None:
        self.network: Any = ZImageNetwork(pipeline.transformer)
        self.prompts = ZImagePrompts(pipeline)

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels)

    def encode(self, prompts: list[str], pairs: Sequence[tuple[str, ...]]) -> Embeddings:
        return self.prompts.encode(prompts, pairs)

    def fits(self, prompt: str, pair: tuple[str, ...]) -> bool:
        """Also whether it needs no more room than the pair's captions: its picture continues theirs."""
        return self.prompts.fits(prompt) and self.prompts.room(prompt) <= max(map(self.prompts.room, pair))

    def schedule(self, scheduler: Any, steps: int, latents: torch.Tensor) -> Mapping[str, Any]:
        """Even noise levels, which the scheduler shifts, as far as the size needs if it is told to."""
        return even_levels(scheduler.config, steps, latents.shape[-2] * latents.shape[-1] // PATCH**2)
