"""Joint attention with stored maps, edited row by row: an oracle for ours, which stores none.

Written from the semantics in Shin et al. 2025 and docs/prompt-to-prompt.md, section 11.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class JointEdit:
    """One edit: its source's row, and in which steps it takes the source's picture queries and keys."""

    source: int = 0
    open_: Sequence[bool] = (True,)
    mask: torch.Tensor | None = None  # M at the tokens [N]


@dataclass
class JointOracle:
    """Called as a core of :mod:`stages.models.diffusion.families.joint`; keeps every map.

    ``skipped``: layers (counted from 0), and picture queries, at which the control is left out by mistake.
    """

    edits: list[JointEdit]
    step: int = 0
    skipped_layers: tuple[int, ...] = ()
    skipped_tokens: tuple[int, ...] = ()
    maps: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, query, key, value, text_tokens):
        rows, _, length, width = query.shape
        sources = rows - len(self.edits)
        picture = list(range(text_tokens, length))
        query, key, output = query.clone(), key.clone(), torch.zeros_like(value)
        skipped = len(self.maps) in self.skipped_layers
        stored = torch.zeros(*query.shape[:3], length, dtype=query.dtype)
        for row in range(rows):
            edit = self.edits[row - sources] if row >= sources else None
            if edit is not None and edit.open_[self.step] and not skipped:
                for token in picture:
                    if token - text_tokens not in self.skipped_tokens:
                        query[row, :, token] = query[edit.source, :, token]
                        key[row, :, token] = key[edit.source, :, token]
            logits = torch.einsum("hqd,hkd->hqk", query[row], key[row]) / width**0.5
            stored[row] = logits.exp() / logits.exp().sum(-1, keepdim=True)
            output[row] = torch.einsum("hqk,hkd->hqd", stored[row], value[row])
            if edit is not None and edit.mask is not None:
                for number, token in enumerate(picture):
                    share = edit.mask[number]
                    output[row, :, token] = (
                        share * output[row, :, token] + (1 - share) * output[edit.source, :, token]
                    )
        self.maps.append(stored)
        return output
