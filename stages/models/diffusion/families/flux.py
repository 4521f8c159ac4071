"""FLUX.1 (schnell and dev): a transformer with joint attention over text and picture, by flow matching.

Guidance is distilled into the weights: dev is told its scale, schnell takes none. Neither has unconditional
rows. A prompt is read twice: T5's states take part in the attention, a pooled vector of CLIP modulates every
token. T5 reads a fixed length, and its padding is attended, as the model was trained.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from stages.models.diffusion.families import FamilyName
from stages.models.diffusion.families.base import Classic, Conditions
from stages.models.diffusion.families.flux_attention import FluxJointAttention, Told
from stages.models.diffusion.families.flux_files import PATCH, SIDE, text_length
from stages.models.diffusion.families.joint import (
    JointCore,
    JointPrompts,
    PackedNetwork,
    Stream,
    dynamic_shift,
    even_levels,
)
from stages.models.diffusion.prompts import Embeddings


class FluxPrompts(JointPrompts):
    """The two tokenizers and text encoders."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.device = pipeline.device
        self.clip, self.t5 = pipeline.text_encoder, pipeline.text_encoder_2
        self.clip_tokenizer, self.tokenizer = pipeline.tokenizer, pipeline.tokenizer_2
        self.context_length = min(text_length(pipeline.transformer.config), self.tokenizer.model_max_length)
        """Largest number of T5's tokens. CLIP's vector sums up the first 77 tokens of a longer prompt."""
        for encoder in (self.clip, self.t5):
            encoder.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Embeddings:
        """T5's states [n,T,d] and CLIP's pooled vectors [n,p]."""
        pooled = self.clip(self._ids(self.clip_tokenizer, prompts, self.clip_tokenizer.model_max_length))
        states = self.t5(self._ids(self.tokenizer, prompts, self.context_length))
        return Embeddings(states[0], pooled.pooler_output)


class FluxNetwork(PackedNetwork):
    """The transformer; latents stay spatial, patches of 2 x 2 are packed inside."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__(transformer)
        self.told = Told()

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in order; each returns the states (text [R,T,C], picture [R,N,C])."""
        return [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]

    def install(self, core: JointCore) -> None:
        """Have ``core`` compute the attention of every layer."""
        names = self.transformer.attn_processors
        self.transformer.set_attn_processor({name: FluxJointAttention(core, self.told) for name in names})

    def begin(
        self,
        rows: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        timestep_cond: torch.Tensor | None,
        added: Mapping[str, torch.Tensor],
    ) -> Stream:
        """What enters the first block, for latents [R,c,h,w]; the arguments are those of a call."""
        self.told.text_tokens = states.shape[1]
        tokens = self.pack(rows)
        # In the order of diffusers' pipeline and transformer, for the bits of half precision.
        times = (timestep / 1000).to(tokens.dtype).expand(len(rows)) * 1000
        told = (times,) if timestep_cond is None else (times, timestep_cond.to(tokens.dtype) * 1000)
        return Stream(
            self.transformer.context_embedder(states),
            self.transformer.x_embedder(tokens),
            self.transformer.time_text_embed(*told, added["pooled"]),
            self.transformer.pos_embed(
                self._positions(states.shape[1], (rows.shape[2], rows.shape[3]), rows)
            ),
        )

    def through(self, block: nn.Module, stream: Stream) -> Stream:
        """What leaves a block."""
        text, picture = block(
            hidden_states=stream.picture,
            encoder_hidden_states=stream.text,
            temb=stream.modulation,
            image_rotary_emb=stream.rotary,
        )
        return replace(stream, text=text, picture=picture)

    def end(self, stream: Stream) -> torch.Tensor:
        """The velocity at the tokens [R,L,4c], after the last block."""
        return self.transformer.proj_out(self.transformer.norm_out(stream.picture, stream.modulation))

    def _positions(self, text: int, size: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
        """The positions for rotary embeddings [T+N,3]: the text's zeros; nothing, row and column."""
        sides = (torch.arange(side, device=like.device) for side in self.grid(size))
        rows, columns = torch.meshgrid(*sides, indexing="ij")
        places = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).float()
        return torch.cat([places.new_zeros(text, 3), places])


class FluxFamily(Classic):
    """FLUX.1's transformer and text encoders; :class:`stages.models.diffusion.families.base.Family`."""

    takes_guidance, multiple, side = False, PATCH, SIDE

    name: FamilyName = "flux"

    def __init__(self, pipeline: DiffusionPipeline, dtype: torch.dtype) -> None:
        self.network: Any = FluxNetwork(pipeline.transformer)
        self.prompts = FluxPrompts(pipeline)

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels) // PATCH**2

    def schedule(self, scheduler: Any, steps: int, latents: torch.Tensor) -> Mapping[str, Any]:
        """Even noise levels, shifted by the scheduler as far as a picture of this size needs."""
        config = scheduler.config
        tokens = latents.shape[-2] * latents.shape[-1] // PATCH**2
        if config.get("use_flow_sigmas"):
            return {"num_inference_steps": steps, "mu": dynamic_shift(config, tokens, max_shift=1.15)}
        return even_levels(config, steps, tokens)

    def conditions(
        self,
        prompts: Embeddings,
        unwanted: Embeddings | None,
        guidance_scale: torch.Tensor,
        latents: torch.Tensor,
    ) -> Conditions:
        assert prompts.pooled is not None
        told = (
            guidance_scale.to(latents.device, torch.float32) if self.network.config.guidance_embeds else None
        )
        return Conditions(prompts.states, None, {"pooled": prompts.pooled}, told)
