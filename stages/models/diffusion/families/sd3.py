"""Stable Diffusion 3 and 3.5: a transformer with joint attention over text and picture, by flow matching.

Guidance is classifier-free, with unconditional rows; turbo models are drawn without. A prompt is read by two
CLIP encoders and by T5. CLIP's tokens, filled up with zeros to T5's width, and T5's tokens take part in the
attention one after the other; the pooled vectors of both CLIPs modulate every token. All lengths are fixed,
and padding is attended, as the model was trained. A pipeline without T5 has zeros in its place.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn
from torch.nn import functional

from stages.models.diffusion.families import FamilyName
from stages.models.diffusion.families.base import Classic, Conditions, Configured, conditions_by
from stages.models.diffusion.families.joint import (
    JointCore,
    JointNetwork,
    JointPrompts,
    Stream,
    dynamic_shift,
)
from stages.models.diffusion.families.sd3_attention import SD3JointAttention
from stages.models.diffusion.families.sd3_files import T5_LENGTH
from stages.models.diffusion.prompts import Embeddings, Segment


class SD3Prompts(JointPrompts):
    """The tokenizers and text encoders: two of CLIP, and T5 unless the pipeline has none."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.device = pipeline.device
        self._clips = [
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        ]
        self.t5, self._t5_tokenizer = pipeline.text_encoder_3, pipeline.tokenizer_3
        self._clip_length = pipeline.tokenizer.model_max_length
        self._width = int(pipeline.transformer.config.joint_attention_dim)
        self.tokenizer, self.context_length = pipeline.tokenizer, self._clip_length
        if self.t5 is not None:
            self.tokenizer = self._t5_tokenizer
            self.context_length = min(T5_LENGTH, self._t5_tokenizer.model_max_length)
        """T5's most tokens, or CLIP's without T5. CLIP reads the first 77 of a longer prompt."""
        for encoder in (pipeline.text_encoder, pipeline.text_encoder_2, self.t5):
            if encoder is not None:
                encoder.eval().requires_grad_(False)
        self.empty = self.encode([""])

    @property
    def segments(self) -> tuple[Segment, ...]:
        """A prompt is in the states twice: CLIP's tokens, which both encoders share, and T5's."""
        t5 = Segment(None, T5_LENGTH) if self.t5 is None else Segment(self.tokenizer, self.context_length)
        return Segment(self._clips[0][0], self._clip_length), t5

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Embeddings:
        """States [n,T,d] of CLIP's tokens, then T5's, and the pooled vectors [n,p] of both CLIPs."""
        outputs = [
            encoder(self._ids(tokenizer, prompts, self._clip_length), output_hidden_states=True)
            for tokenizer, encoder in self._clips
        ]
        clip = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        if self.t5 is None:
            t5 = clip.new_zeros(len(prompts), T5_LENGTH, self._width)
        else:
            t5 = self.t5(self._ids(self._t5_tokenizer, prompts, self.context_length))[0]
        clip = functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        pooled = torch.cat([output.text_embeds for output in outputs], -1)
        return Embeddings(torch.cat([clip, t5.to(clip.dtype)], 1), pooled)


class SD3Network(JointNetwork):
    """The transformer."""

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in order; each returns the states (text [R,T,C], picture [R,N,C]), the last no text."""
        return [*self.transformer.transformer_blocks]

    def install(self, core: JointCore) -> None:
        """Have ``core`` compute the attention of every layer."""
        names = self.transformer.attn_processors
        self.transformer.set_attn_processor({name: SD3JointAttention(core) for name in names})

    def begin(
        self,
        rows: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        timestep_cond: torch.Tensor | None,
        added: Mapping[str, torch.Tensor],
    ) -> Stream:
        """What enters the first block, for latents [R,c,h,w]; it is not told its guidance."""
        return Stream(
            self.transformer.context_embedder(states),
            self.transformer.pos_embed(rows).contiguous(),
            self.transformer.time_text_embed(timestep.expand(len(rows)), added["pooled"]),
        )

    def through(self, block: nn.Module, stream: Stream) -> Stream:
        """What leaves a block."""
        text, picture = block(
            hidden_states=stream.picture, encoder_hidden_states=stream.text, temb=stream.modulation
        )
        return replace(stream, text=text, picture=picture)

    def end(self, stream: Stream) -> torch.Tensor:
        """The velocity at the tokens [R,L,p p c] for patches of p x p, after the last block."""
        return self.transformer.proj_out(self.transformer.norm_out(stream.picture, stream.modulation))

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the tokens of latents of a size."""
        patch = int(self.config.patch_size)
        return size[0] // patch, size[1] // patch

    def unpack(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Tokens [R,N,p p c] as latents [R,c,h,w] of a size."""
        patch = int(self.config.patch_size)
        spread = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, self.grid(size))
        return spread.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class SD3Family(Configured, Classic):
    """Its transformer and text encoders; :class:`stages.models.diffusion.families.base.Family`."""

    takes_guidance = True

    name: FamilyName = "sd3"

    def __init__(self, pipeline: DiffusionPipeline, dtype: torch.dtype) -> None:
        self.network: Any = SD3Network(pipeline.transformer)
        self.prompts = SD3Prompts(pipeline)

    def schedule(self, scheduler: Any, steps: int, latents: torch.Tensor) -> Mapping[str, Any]:
        """The scheduler's own noise levels.

        It shifts the ends of its range and then every level: twice, as the pipeline does.
        """
        config = scheduler.config
        if not config.get("use_dynamic_shifting"):
            return {"num_inference_steps": steps}
        tokens = (latents.shape[-2] // self.multiple) * (latents.shape[-1] // self.multiple)
        return {"num_inference_steps": steps, "mu": dynamic_shift(config, tokens, max_shift=1.16)}

    def conditions(
        self,
        prompts: Embeddings,
        unwanted: Embeddings | None,
        guidance_scale: torch.Tensor,
        latents: torch.Tensor,
    ) -> Conditions:
        return conditions_by("pooled", prompts, unwanted)
