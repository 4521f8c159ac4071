"""The published Prompt-to-Prompt controllers, in our words: an oracle that stores every map.

Written from the semantics of google/prompt-to-prompt (Hertz et al. 2022): after the softmax, in the
conditional half of the batch, the edit's cross-attention is replaced token by token and its
self-attention as a whole, while their gates are open.
"""

from dataclasses import dataclass

import torch

from stages.edit.alignment import TokenMap


@dataclass
class PublishedController:
    """One source (row 0) and one edit (row 1); told the step by ``before_step``."""

    tokens: TokenMap
    steps: int
    cross_until: float
    self_until: float
    self_max_tokens: int
    step: int = 0

    def before_step(self, step: int) -> None:
        self.step = step

    def after_step(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        return latents

    def edited(self, maps_RHNT: torch.Tensor, is_cross: bool) -> torch.Tensor:
        """Maps of [uncond source, uncond edit, cond source, cond edit], the last one controlled."""
        source, edit = maps_RHNT[2], maps_RHNT[3]
        matrix, own = (part.to(maps_RHNT.dtype) for part in (self.tokens.matrix, self.tokens.own))
        if is_cross and self.step < int(self.cross_until * (self.steps + 1)):
            edit = source @ matrix + edit * own
        elif (
            not is_cross
            and self.step < int(self.self_until * self.steps)
            and source.shape[1] <= self.self_max_tokens
        ):
            edit = source
        return torch.cat([maps_RHNT[:3], edit[None]])


class PublishedAttention:
    """Attention that materialises its maps and lets the controller edit them."""

    def __init__(self, controller: PublishedController) -> None:
        self.controller = controller

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(states)
            for states in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        maps = torch.softmax(query @ key.transpose(1, 2) * attn.scale, -1)
        maps = maps.unflatten(0, (len(hidden_states), attn.heads))
        maps = self.controller.edited(maps, encoder_hidden_states is not None)
        output = attn.batch_to_head_dim(maps.flatten(0, 1) @ value)
        return attn.to_out[1](attn.to_out[0](output))


def install(unet, controller: PublishedController) -> None:
    unet.set_attn_processor({name: PublishedAttention(controller) for name in unet.attn_processors})
