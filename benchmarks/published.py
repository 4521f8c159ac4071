"""The published loop as a baseline: attention that stores and edits its maps, one pair per call.

Written in our own words after google/prompt-to-prompt (Hertz et al. 2022): AttentionReplace with its store.
The maps of the conditional half are edited in place after the softmax. Maps of at most 32 x 32 queries are
summed over the steps, as the published controllers always do.
"""

from collections import defaultdict

import torch

STORED_TOKENS = 32**2


class PublishedReplace:
    """AttentionReplace for one source and ``edits`` edits: cross-attention mapped, self-attention copied."""

    def __init__(
        self,
        matrix: torch.Tensor,
        edits: int,
        steps: int,
        cross_until: float,
        self_until: float,
        self_max_tokens: int,
    ) -> None:
        self.matrix, self.rows, self.steps = matrix, 1 + edits, steps
        self.cross_until, self.self_until = cross_until, self_until
        self.step, self.self_max_tokens = 0, self_max_tokens
        self.step_store: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.store: dict[str, list[torch.Tensor]] = {}

    def before_sampling(self, states: torch.Tensor, size: tuple[int, int]) -> None:
        pass

    def before_step(self, step: int) -> None:
        self.step = step

    def after_step(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        for key, maps in self.step_store.items():
            if key in self.store:
                for total, new in zip(self.store[key], maps, strict=True):
                    total += new
            else:
                self.store[key] = maps
        self.step_store = defaultdict(list)
        return latents

    def edit(self, maps: torch.Tensor, name: str, is_cross: bool) -> torch.Tensor:
        """Edit attention maps [2 * rows * heads, N, T] in place."""
        half = maps[maps.shape[0] // 2 :]
        if half.shape[1] <= STORED_TOKENS:
            self.step_store[name].append(half)
        heads = half.shape[0] // self.rows
        by_row = half.view(self.rows, heads, *half.shape[1:])
        base, edits = by_row[0], by_row[1:]
        if is_cross:
            gate = float(self.step < int(self.cross_until * (self.steps + 1)))
            replaced = torch.einsum("hpw,wn->hpn", base, self.matrix)
            edits.copy_(replaced * gate + edits * (1 - gate))
        elif base.shape[1] <= self.self_max_tokens and self.step < int(self.self_until * self.steps):
            edits.copy_(base.unsqueeze(0).expand_as(edits))
        return maps


class PublishedAttention:
    """diffusers' explicit attention; the controller runs between softmax and values."""

    def __init__(self, name: str, controller: PublishedReplace) -> None:
        self.name, self.controller = name, controller

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None
    ) -> torch.Tensor:
        is_cross = encoder_hidden_states is not None
        context = encoder_hidden_states if is_cross else hidden_states
        query, key, value = (
            attn.head_to_batch_dim(states)
            for states in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        maps = (torch.bmm(query, key.transpose(1, 2)) * attn.scale).softmax(-1)
        maps = self.controller.edit(maps, self.name, is_cross)
        output = attn.batch_to_head_dim(torch.bmm(maps, value))
        return attn.to_out[1](attn.to_out[0](output))


def install(unet, controller: PublishedReplace) -> None:
    unet.set_attn_processor({name: PublishedAttention(name, controller) for name in unet.attn_processors})
