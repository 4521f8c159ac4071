"""Prompt-to-Prompt as a control of the sampler: what each row borrows at each step, and where.

Rows of a batch are [sources | edits]; the U-Net sees [uncond sources, uncond edits, cond sources,
cond edits]. Only conditional edit rows take the source's attention, as in the published code.

Gates, for S steps and fractions as published: cross-attention is controlled while
``step < int(cross_until * (S + 1))``, self-attention while ``step < int(self_until * S)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from stages.edit.alignment import TokenMap


@dataclass(frozen=True)
class EditRow:
    """One edit of a batch.

    ``source`` is the index of its source row; ``mask`` [H,W] in [0,1] says how far a pixel is
    edited, None everywhere fully.
    """

    source: int
    tokens: TokenMap
    cross_until: float
    self_until: float
    mask: torch.Tensor | None = None


class PromptToPrompt:
    """The state of one batch that the attention processors read, and the latent fusion.

    Args:
        edits: the edit rows, in batch order after the ``sources``.
        sources: how many source rows come first.
        steps: of the sampler.
        self_max_tokens: self-attention is controlled in layers of at most so many tokens.
        device: of the U-Net.
        dtype: of the U-Net.
    """

    def __init__(
        self,
        edits: Sequence[EditRow],
        sources: int,
        steps: int,
        self_max_tokens: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.steps, self.self_max_tokens = steps, self_max_tokens
        rows = sources + len(edits)
        self.edit_rows = torch.arange(sources, rows, device=device)
        self.source_rows = torch.tensor([edit.source for edit in edits], device=device)
        self.cond_edits, self.cond_sources = self.edit_rows + rows, self.source_rows + rows
        self.matrix = torch.stack([edit.tokens.matrix for edit in edits]).to(device, dtype)
        self.own = torch.stack([edit.tokens.own for edit in edits]).to(device, dtype)
        self._cross_steps = torch.tensor([int(e.cross_until * (steps + 1)) for e in edits], device=device)
        self._self_steps = torch.tensor([int(e.self_until * steps) for e in edits], device=device)
        self.last_cross, self.last_self = int(self._cross_steps.max()), int(self._self_steps.max())
        self.mask = _stack_masks(edits, device, dtype)
        self._pooled: dict[int, torch.Tensor] = {}
        self.text: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        """Keys and values of the prompts by layer: they are the same at every step."""
        self._all_rows = torch.arange(2 * rows, device=device)
        self.query_rows = self._all_rows
        """[2R] the row whose queries and keys each row uses in controlled self-attention."""
        self.gate = torch.zeros(len(edits), 1, device=device, dtype=dtype)
        """[E,1] a: 1 while the edit takes the source's cross-attention."""
        self.cross_open = self.self_open = False

    def before_step(self, step: int) -> None:
        """Set the gates of a step."""
        self.cross_open, self.self_open = step < self.last_cross, step < self.last_self
        self.gate = (step < self._cross_steps).to(self.gate.dtype)[:, None]
        query_rows = self._all_rows.clone()
        borrowed = torch.where(step < self._self_steps, self.cond_sources, self.cond_edits)
        query_rows[self.cond_edits] = borrowed
        self.query_rows = query_rows

    def after_step(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        """Latent fusion: after step i of S a latent is free where M > 1 - i/S, else the source's.

        M says from when a pixel is free, as in Differential Diffusion (Levin and Fried 2023):
        1 is never fused, 0 always. (A lerp by M at every step compounds to a hard mask.)
        """
        if self.mask is None:
            return latents
        height, width = latents.shape[-2:]
        mask = pool_mask(self.mask, height, width)
        free = mask > 1 - (step + 1) / self.steps
        edited, source = latents[self.edit_rows], latents[self.source_rows]
        return latents.index_copy(0, self.edit_rows, torch.where(free, edited, source))

    def mask_for(self, tokens: int) -> torch.Tensor | None:
        """M at a layer's resolution [E,tokens,1]; None without masks."""
        if self.mask is None:
            return None
        if tokens not in self._pooled:
            height, width = self.mask.shape[-2:]
            rows = round((tokens * height / width) ** 0.5)
            self._pooled[tokens] = pool_mask(self.mask, rows, tokens // rows).flatten(2).transpose(1, 2)
        return self._pooled[tokens]


def pool_mask(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Masks [E,1,H,W] at a smaller size by max pooling: area averages would starve small objects."""
    return functional.adaptive_max_pool2d(mask, (height, width))


def _stack_masks(edits: Sequence[EditRow], device: torch.device, dtype: torch.dtype):
    masks = [edit.mask for edit in edits if edit.mask is not None]
    if not masks:
        return None
    everywhere = torch.ones_like(masks[0])
    stacked = [everywhere if edit.mask is None else edit.mask for edit in edits]
    return torch.stack(stacked)[:, None].to(device, dtype)
