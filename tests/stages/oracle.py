"""Attention control that stores every map: an oracle for ours, which stores none.

Written from the semantics of the published code (google/prompt-to-prompt, Hertz et al. 2022, and
timothybrooks/instruct-pix2pix, Brooks et al. 2023; docs/prompt-to-prompt.md): maps are edited
after the softmax, layer by layer and edit by edit, in loops.
"""

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F


@dataclass
class OracleEdit:
    """One edit: windows as fractions, exceptions and weights by target token.

    ``matrix`` and ``own`` are the token map before any reweighting.
    """

    matrix: torch.Tensor
    own: torch.Tensor
    cross: tuple[float, float] = (0, 0)
    self_: tuple[float, float] = (0, 0)
    source: int = 0
    exceptions: dict[int, tuple[float, float]] = field(default_factory=dict)
    weights: dict[int, float] = field(default_factory=dict)
    instruct_strength: float | None = None
    mask: torch.Tensor | None = None
    source_words: list[int] = field(default_factory=list)
    target_words: list[int] = field(default_factory=list)
    threshold: float | None = None


class Oracle:
    """A control of ``stages.models.diffusion.sampler.sample`` and the state of its attention processors."""

    def __init__(
        self,
        edits: list[OracleEdit],
        sources: int,
        steps: int,
        self_max_tokens: int,
        *,
        guided: bool = True,
        mask_attention: bool = True,
        fusion: str = "schedule",
        blend_tokens: int = 64,
        blend_before_control: bool = False,
    ) -> None:
        self.edits, self.sources, self.steps, self.self_max_tokens = edits, sources, steps, self_max_tokens
        self.guided, self.mask_attention, self.fusion = guided, mask_attention, fusion
        self.blend_tokens, self.blend_before_control = blend_tokens, blend_before_control
        self.step = 0
        self.store: list[torch.Tensor] = []

    def before_sampling(self, states: torch.Tensor, size: tuple[int, int]) -> None:
        pass

    def before_step(self, step: int) -> None:
        self.step = step

    def rows_of(self, edit_index: int) -> list[tuple[int, int, bool]]:
        """(edit's row, source's row, whether conditional) of each half the U-Net sees."""
        total = self.sources + len(self.edits)
        edit_row, source_row = self.sources + edit_index, self.edits[edit_index].source
        if not self.guided:
            return [(edit_row, source_row, True)]
        return [(edit_row, source_row, False), (edit_row + total, source_row + total, True)]

    def edited(self, maps: torch.Tensor, is_cross: bool) -> torch.Tensor:
        """Maps [R,H,N,T or N] after the softmax, controlled."""
        before, result = maps, maps.clone()
        for index, edit in enumerate(self.edits):
            for edit_row, source_row, conditional in self.rows_of(index):
                if is_cross and conditional:
                    result[edit_row] = self.cross_map(edit, result[source_row], before[edit_row])
                elif not is_cross and self.takes_self(edit, maps.shape[-1], conditional):
                    result[edit_row] = result[source_row]
        if is_cross and maps.shape[2] == self.blend_tokens:
            self.store.append(before.clone() if self.blend_before_control else result.clone())
        return result

    def cross_map(self, edit: OracleEdit, source: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        replaced = source @ edit.matrix + own * edit.own
        for token, weight in edit.weights.items():
            replaced[..., token] = replaced[..., token] * weight
        result = own.clone()
        for token in range(own.shape[-1]):
            low, high = edit.exceptions.get(token, edit.cross)
            first, end = int(low * (self.steps + 1)), int(high * (self.steps + 1))
            if first <= self.step < end:
                result[..., token] = replaced[..., token]
        return result

    def takes_self(self, edit: OracleEdit, tokens: int, conditional: bool) -> bool:
        if edit.instruct_strength is not None:
            return edit.instruct_strength > self.step / max(1, self.steps - 1)
        low, high = edit.self_
        first, end = int(low * self.steps), int(high * self.steps)
        return conditional and tokens <= self.self_max_tokens and first <= self.step < end

    def masked(self, output: torch.Tensor) -> torch.Tensor:
        """Attention outputs [R,N,C]: the source's where an edit's mask is 0."""
        if not self.mask_attention:
            return output
        result = output.clone()
        side = int(output.shape[1] ** 0.5)
        for index, edit in enumerate(self.edits):
            if edit.mask is None:
                continue
            pooled = F.adaptive_max_pool2d(edit.mask[None, None], side).reshape(-1, 1)
            for edit_row, source_row, _ in self.rows_of(index):
                result[edit_row] = pooled * output[edit_row] + (1 - pooled) * result[source_row]
        return result

    def after_step(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        result = latents.clone()
        for index, edit in enumerate(self.edits):
            edit_row, source_row = self.sources + index, edit.source
            edited, source = latents[edit_row], result[source_row]
            if edit.threshold is not None:
                keep = self.local_blend(index, edit, latents.shape[-2:])
                edited = source + keep * (edited - source)
            if edit.mask is not None:
                edited = self.fused(edit, step, edited, source)
            result[edit_row] = edited
        return result

    def local_blend(self, index: int, edit: OracleEdit, size) -> torch.Tensor:
        edit_row, source_row, _ = self.rows_of(index)[-1]
        keep = torch.zeros(size, dtype=torch.bool)
        for row, words in ((source_row, edit.source_words), (edit_row, edit.target_words)):
            if not words:
                continue
            # layers and steps alike: the sum of all is as good as the mean, since the maximum divides it
            total = sum(maps[row][..., words].sum(-1).mean(0) for maps in self.store)
            side = int(self.blend_tokens**0.5)
            pooled = F.max_pool2d(total.reshape(1, 1, side, side), 3, 1, 1)
            resized = F.interpolate(pooled, size)[0, 0]
            keep |= resized / resized.max() > edit.threshold
        return keep.to(edit.matrix.dtype)

    def fused(self, edit: OracleEdit, step: int, edited: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        mask = F.adaptive_max_pool2d(edit.mask[None, None], edited.shape[-2:])[0, 0]
        if self.fusion == "none":
            return edited
        if self.fusion == "schedule":
            free = mask > 1 - (step + 1) / self.steps
            return free * edited + ~free * source
        weight = mask ** (1 / self.steps) if self.fusion == "power" else mask
        return weight * edited + (1 - weight) * source


class OracleAttention:
    """Attention that materialises its maps and lets the oracle edit them.

    ``linear``: whether self-attention is Sana's, whose maps are rectified products.
    """

    def __init__(self, oracle: Oracle, linear: bool = False) -> None:
        self.oracle, self.linear = oracle, linear

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = attn.to_q(hidden_states), attn.to_k(context)
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        query, key, value = (attn.head_to_batch_dim(states) for states in (query, key, attn.to_v(context)))
        if self.linear and encoder_hidden_states is None:
            maps = query.relu() @ key.relu().transpose(1, 2)
            maps = maps / (maps.sum(-1, keepdim=True) + 1e-15)  # a row can be 0
        else:
            logits = query @ key.transpose(1, 2) * attn.scale
            if attention_mask is not None:
                logits = logits + attention_mask.repeat_interleave(attn.heads, 0)
            maps = torch.softmax(logits, -1)
        maps = maps.unflatten(0, (len(hidden_states), attn.heads))
        maps = self.oracle.edited(maps, encoder_hidden_states is not None)
        output = self.oracle.masked(attn.batch_to_head_dim(maps.flatten(0, 1) @ value))
        return attn.to_out[1](attn.to_out[0](output))


def install(unet, oracle: Oracle, linear: bool = False) -> None:
    unet.set_attn_processor({name: OracleAttention(oracle, linear) for name in unet.attn_processors})
