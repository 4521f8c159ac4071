"""The state of Prompt-to-Prompt over one batch: what each row takes from its source, step by step.

A batch has the rows [sources | edits]. With classifier-free guidance, the U-Net sees [uncond sources, uncond
edits, cond sources, cond edits]. Only conditional edit rows take the source's attention, as in the published
code. Without guidance there are only conditional rows. The code addresses rows by index, never by "the second
half" of the batch.

A source may itself be an edit (the previous turn); its attention is used after its own control was applied. A
turn that changes nothing therefore draws the picture before (docs/prompt-to-prompt.md, section 7).

Shapes: E edits, R rows of the U-Net, T tokens of a prompt, N pixels of a layer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.fusion import Fusion, free_above, fuse, grid, pool_mask
from stages.edit.prompt_to_prompt.generations import generations_of, rows_by_turn, turns_of
from stages.edit.prompt_to_prompt.local_blend import Blend, blended_region

KeyValue = tuple[torch.Tensor, torch.Tensor]
"""Keys and values [R,heads,T,D]."""


@dataclass(frozen=True)
class EditRow:
    """One edit of a batch.

    Attributes:
        source: index of its source row in the batch: the row of a source, or of an earlier edit.
        tokens: the token map, B and rho.
        cross: the gate a of cross-attention, float [steps,T] (``stages.edit.prompt_to_prompt.gates``).
        self_: the gate of self-attention, bool [steps].
        shared: share attention as InstructPix2Pix does: the self-attention gate applies to layers of every
            size, and also to the unconditional row.
        mask: M [H,W] in [0,1], the degree to which a pixel is edited; None: 1 everywhere.
        blend: LocalBlend, or None.
        blocks: the blocks of a transformer in which the gates act, bool [blocks]; None for U-Nets.
    """

    source: int
    tokens: TokenMap
    cross: torch.Tensor
    self_: torch.Tensor
    shared: bool = False
    mask: torch.Tensor | None = None
    blend: Blend | None = None
    blocks: torch.Tensor | None = None


class PromptToPrompt:
    """The state that the attention processors read, and the changes to the latents after each step.

    Args:
        edits: the edit rows in batch order: all first turns, then all second turns, and so on.
        sources: number of source rows; they come before the edits.
        steps: number of sampling steps.
        self_max_tokens: self-attention is controlled in layers with at most this many tokens.
        device, dtype: the U-Net's.
        guided: whether the batch has unconditional rows.
        mask_attention: whether M also mixes the attention outputs.
        fusion: how M acts on the latents.
        blend_tokens: LocalBlend uses the cross-attention layers with this many tokens.
        compiled: compute every step as if a gate were open, a closed one as a gate of 0, so that all steps
            are one graph. The results are equal. A closed gate then costs the edits one more attention to
            the text, and copies of queries and keys.

    Raises:
        ValueError: an edit's source does not come before it, or the turns are mixed.
    """

    def __init__(
        self,
        edits: Sequence[EditRow],
        sources: int,
        steps: int,
        self_max_tokens: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        guided: bool = True,
        mask_attention: bool = True,
        fusion: Fusion = "schedule",
        blend_tokens: int = 256,
        compiled: bool = False,
    ) -> None:
        self.steps, self.self_max_tokens, self.blend_tokens = steps, self_max_tokens, blend_tokens
        self.mask_attention, self.fusion, self.sources, self.step = mask_attention, fusion, sources, 0
        self._compiled = compiled
        rows = sources + len(edits)
        self.halves = (0, rows) if guided else (0,)
        """Offsets of the unconditional and the conditional rows; without guidance only the latter."""
        self.edit_rows = torch.arange(sources, rows, device=device)
        self.source_rows = torch.tensor([edit.source for edit in edits], device=device)
        self.first_equal = [next(i for i, other in enumerate(edits) if other is edit) for edit in edits]
        """For each edit, the first position at which the batch has the same one."""
        self.cond_edits = self.edit_rows + self.halves[-1]
        source_rows = [edit.source for edit in edits]
        self.turns = turns_of(source_rows, sources)
        """The edits of each turn; a turn's sources are those of the finished turn before it."""
        self.rows_by_turn = rows_by_turn(self.turns, self.edit_rows, self.source_rows, self.halves)
        self.generations = generations_of(source_rows, sources, self.halves[-1], device)
        self.matrix = torch.stack([edit.tokens.matrix for edit in edits]).to(device, dtype)
        self.own = torch.stack([edit.tokens.own for edit in edits]).to(device, dtype)
        self.mask = _stack_masks(edits, device)
        self._pooled: dict[int, torch.Tensor] = {}
        self.layers: Mapping[str, Callable[[torch.Tensor], KeyValue]] = {}
        """By layer of cross-attention, what makes keys and values of the prompts' states."""
        self.text: dict[str, KeyValue] = {}
        """Keys and values of the prompts, by layer: the same in every step."""

        # Tables over the steps. ``before_step`` copies a row of each into a fixed tensor, so that a compiled
        # network sees the same tensors in every step and is not compiled again.
        gates = torch.stack([edit.cross for edit in edits], 1)
        self._gates, self._cross_steps = gates.to(device, dtype), gates.any(-1).any(-1).tolist()
        self._query_rows, self._self_steps = self._borrowed(edits, sources, device, shared_only=False)
        self._shared_rows, self._shared_steps = self._borrowed(edits, sources, device, shared_only=True)
        self.gate = torch.zeros_like(self._gates[0])
        """The gate a [E,T] of this step: 1 if a token takes the source's cross-attention."""
        self.query_rows = self._query_rows[0].clone()
        """For each row [R], the row whose queries and keys it uses in controlled self-attention."""
        self.shared_rows = self._shared_rows[0].clone()
        """The same for layers with more than ``self_max_tokens`` tokens (InstructPix2Pix's sharing)."""
        self.cross_open = self.self_open = self.shared_open = False
        self._set_up_blend(edits, device, dtype)

    def _borrowed(
        self, edits: Sequence[EditRow], sources: int, device: torch.device, *, shared_only: bool
    ) -> tuple[torch.Tensor, list[bool]]:
        """By step, the row whose queries and keys each row uses [steps,R], and whether any row borrows."""
        total = self.halves[-1] + sources + len(edits)
        table = torch.arange(total).repeat(self.steps, 1)
        for row, edit in enumerate(edits, sources):
            if shared_only and not edit.shared:
                continue
            for start in self.halves if edit.shared else self.halves[-1:]:
                # The source's own entry: if the source borrows too (a session), the edit uses the same row.
                table[:, start + row] = torch.where(edit.self_, table[:, start + edit.source], start + row)
        borrows = (table != torch.arange(total)).any(1).tolist()
        return table.to(device), borrows

    def _set_up_blend(self, edits: Sequence[EditRow], device: torch.device, dtype: torch.dtype) -> None:
        blends = [edit.blend for edit in edits]
        self.blended = [index for index, blend in enumerate(blends) if blend is not None]
        """The edits with LocalBlend."""
        self.blending = bool(self.blended)
        if not self.blending:
            return
        nothing = next(torch.zeros_like(blend.source_words) for blend in blends if blend is not None)
        pairs = [(b.source_words, b.target_words) if b else (nothing, nothing) for b in blends]
        self.source_words, self.target_words = (
            torch.stack(words).to(device, dtype) for words in zip(*pairs, strict=True)
        )
        """Followed tokens of the source's and of the edit's prompt, [E,T]: 1 or 0."""
        exact = torch.promote_types(dtype, torch.float32)  # sums over many steps need at least float32
        self.source_maps = torch.zeros(len(edits), self.blend_tokens, device=device, dtype=exact)
        self.target_maps = torch.zeros_like(self.source_maps)
        """Attention to the followed words [E,N], summed over layers, heads and the steps so far."""
        self._thresholds = torch.tensor([b.threshold if b else 0.0 for b in blends], device=device)
        self._unblended = torch.tensor([b is None for b in blends], device=device)

    def before_sampling(self, states: torch.Tensor, size: tuple[int, int]) -> None:
        """Compute what is the same in every step, so that a compiled network finds it in the first one.

        Args:
            states: of the prompts' tokens, of all rows [R,T,d].
            size: rows and columns of the latents.
        """
        self.text = {name: of_text(states) for name, of_text in self.layers.items()}
        height, width = size
        for level in range(min(size).bit_length()):
            self._mask_at((height >> level) * (width >> level))

    def before_step(self, step: int) -> None:
        """Set the gates of a step."""
        self.step = step
        self.cross_open = self._compiled or self._cross_steps[step]
        self.self_open = self._compiled or self._self_steps[step]
        self.shared_open = self._compiled or self._shared_steps[step]
        self.gate.copy_(self._gates[step])
        self.query_rows.copy_(self._query_rows[step])
        self.shared_rows.copy_(self._shared_rows[step])

    def after_step(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        """Apply LocalBlend, then latent fusion (docs/prompt-to-prompt.md, sections 5 and 6)."""
        if self.mask is None and not self.blending:
            return latents
        # Turn by turn, because a later turn's source latents are the changed latents of the turn before.
        for turn in self.turns:
            rows = self.edit_rows[turn]
            edited = self._held(step, turn, latents[rows], latents[self.source_rows[turn]])
            latents = latents.index_copy(0, rows, edited)
        return latents

    def _held(self, step: int, turn: slice, edited: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """The latents of a turn's edits [E,c,h,w], with their sources' latents where they may not change."""
        height, width = edited.shape[-2:]
        if self.blending:
            layer = grid(self.blend_tokens, height, width)
            source_maps, target_maps = (
                maps[turn].unflatten(1, layer) for maps in (self.source_maps, self.target_maps)
            )
            region = blended_region(source_maps, target_maps, self._thresholds[turn], (height, width))
            free = region | self._unblended[turn, None, None, None]
            edited = torch.where(free, edited, source)
        if self.mask is not None and self.fusion != "none":
            mask = pool_mask(self.mask[turn], height, width).to(edited.dtype)
            edited = fuse(edited, source, mask, self.fusion, step, self.steps)
        return edited

    def borrowed_rows(self, tokens: int) -> torch.Tensor | None:
        """The row whose queries and keys each row uses in a self-attention layer with this many tokens.

        None: each row uses its own.
        """
        if tokens <= self.self_max_tokens:
            return self.query_rows if self.self_open else None
        return self.shared_rows if self.shared_open else None

    def mask_for(self, tokens: int) -> torch.Tensor | None:
        """M at the resolution of a layer, [E,tokens,1]; None if no edit has a mask."""
        return self._mask_at(tokens) if self.mask_attention else None

    def inactive(self, tokens: int) -> torch.Tensor | None:
        """The tokens of the picture that the fusion keeps at the source's in this step, bool [E,tokens,1].

        None: no edit has a mask.
        """
        mask = self._mask_at(tokens)
        return None if mask is None else mask <= free_above(self.fusion, self.step, self.steps)

    def _mask_at(self, tokens: int) -> torch.Tensor | None:
        if self.mask is None:
            return None
        if tokens not in self._pooled:
            size = grid(tokens, self.mask.shape[-2], self.mask.shape[-1])
            self._pooled[tokens] = pool_mask(self.mask, *size).flatten(2).transpose(1, 2)
        return self._pooled[tokens]


def _stack_masks(edits: Sequence[EditRow], device: torch.device) -> torch.Tensor | None:
    masks = [edit.mask for edit in edits if edit.mask is not None]
    if not masks:
        return None
    everywhere = torch.ones_like(masks[0])
    stacked = [everywhere if edit.mask is None else edit.mask for edit in edits]
    return torch.stack(stacked)[:, None].to(device)
