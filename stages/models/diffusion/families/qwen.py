"""Qwen-Image: a transformer with joint attention over text and picture, by flow matching.

Guidance is classifier-free, and the guided prediction gets back the conditional one's length at every token.
A prompt is read by Qwen2.5-VL within a template, whose first 34 tokens are dropped. It enters by attention
alone: no pooled vector modulates the tokens, so in a step all rows are modulated alike.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from stages.models.diffusion.families import FamilyName
from stages.models.diffusion.families.base import Masked
from stages.models.diffusion.families.chat import ChatPrompts
from stages.models.diffusion.families.flux_files import PATCH, SIDE
from stages.models.diffusion.families.joint import (
    JointCore,
    PackedNetwork,
    Stream,
    even_levels,
    plain_attention,
)
from stages.models.diffusion.families.qwen_attention import QwenJointAttention
from stages.models.diffusion.sampler import classifier_free


class QwenPrompts(ChatPrompts):
    """Qwen2.5-VL, which is asked to describe a picture."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._template = pipeline.prompt_template_encode
        self.dropped = pipeline.prompt_template_encode_start_idx
        super().__init__(pipeline.tokenizer, pipeline.text_encoder)

    def written(self, prompt: str) -> str:
        return self._template.format(prompt)


class QwenNetwork(PackedNetwork):
    """The transformer with a U-Net's call."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__(transformer)
        # So that sources are drawn by the same arithmetic in both stages, whose pictures are compared.
        self.install(plain_attention)

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in order; each returns the states (text [R,T,C], picture [R,N,C])."""
        return [*self.transformer.transformer_blocks]

    def install(self, core: JointCore) -> None:
        """Have ``core`` compute the attention of every layer."""
        names = self.transformer.attn_processors
        self.transformer.set_attn_processor({name: QwenJointAttention(core) for name in names})

    def begin(
        self,
        rows: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        timestep_cond: torch.Tensor | None,
        added: Mapping[str, torch.Tensor],
    ) -> Stream:
        """What enters the first block, for latents [R,c,h,w]; it is not told its guidance."""
        net, size = self.transformer, self.grid((rows.shape[2], rows.shape[3]))
        picture = net.img_in(self.pack(rows))
        time = net.time_text_embed((timestep / 1000).to(picture.dtype).expand(len(rows)), picture)
        text = net.txt_in(net.txt_norm(states))
        of_picture, of_text = net.pos_embed(
            [(1, *size)], max_txt_seq_len=states.shape[1], device=picture.device
        )
        return Stream(text, picture, time, (torch.cat([of_text, of_picture]),), added["mask"])

    def through(self, block: nn.Module, stream: Stream) -> Stream:
        """What leaves a block."""
        assert stream.text is not None
        (rotary,) = stream.rotary
        of_text, of_picture = rotary.tensor_split([stream.text.shape[1]])
        text, picture = block(
            hidden_states=stream.picture,
            encoder_hidden_states=stream.text,
            encoder_hidden_states_mask=stream.seen,
            temb=stream.modulation,
            image_rotary_emb=(of_picture, of_text),
        )
        return replace(stream, text=text, picture=picture)

    def end(self, stream: Stream) -> torch.Tensor:
        """The velocity at the tokens [R,L,4c], after the last block."""
        return self.transformer.proj_out(self.transformer.norm_out(stream.picture, stream.modulation))


class QwenFamily(Masked):
    """Its transformer and text encoder; :class:`stages.models.diffusion.families.base.Family`."""

    takes_guidance, multiple, side = True, PATCH, SIDE

    name: FamilyName = "qwen"

    def __init__(self, pipeline: DiffusionPipeline, dtype: torch.dtype) -> None:
        self.network: Any = QwenNetwork(pipeline.transformer)
        self.prompts = QwenPrompts(pipeline)

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels) // PATCH**2

    def schedule(self, scheduler: Any, steps: int, latents: torch.Tensor) -> Mapping[str, Any]:
        """Even noise levels, shifted by the scheduler as far as a picture of this size needs."""
        return even_levels(scheduler.config, steps, latents.shape[-2] * latents.shape[-1] // PATCH**2)

    def guided(
        self, unconditional: torch.Tensor, conditional: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """The guided prediction, at every token (2 x 2 latents, all channels) as long as the conditional."""
        combined = classifier_free(unconditional, conditional, scale)
        wanted, own = (self._lengths(each) for each in (conditional, combined))
        return combined * (wanted / own).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)

    def _lengths(self, predicted: torch.Tensor) -> torch.Tensor:
        """The length of a prediction [L,c,h,w] at every token [L,1,h/2,w/2]."""
        tokens = predicted.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
        return tokens.square().sum((1, 3, 5)).sqrt()[:, None]
