"""Joint attention with stored maps, edited row by row: an oracle for ours, which stores none.

Written from the semantics in docs/prompt-to-prompt.md, section 11: Shin et al. 2025 (qk), Stable Flow 2024
(kv), Hertz et al. 2022 with rows divided by their sums (p2p).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class JointEdit:
    """One edit: its source's row, and in which steps and blocks it takes what from its source.

    ``text_gate`` [steps,T], ``matrix`` [T,T] and ``own`` [T] are for p2p: its text's gate and its token map.
    """

    source: int = 0
    open_: Sequence[bool] = (True,)
    mask: torch.Tensor | None = None  # M at the tokens [N]
    blocks: Collection[int] | None = None  # None: all
    text_gate: torch.Tensor | None = None
    matrix: torch.Tensor | None = None
    own: torch.Tensor | None = None
    source_words: Sequence[int] = ()
    target_words: Sequence[int] = ()


@dataclass
class JointOracle:
    """Called as a core of :mod:`stages.models.diffusion.families.joint`; keeps every map.

    ``skipped``: layers (counted from 0), and picture queries, at which the control is left out by mistake.
    ``blocks``: the block of each layer; by default each has one.
    """

    edits: list[JointEdit]
    step: int = 0
    skipped_layers: tuple[int, ...] = ()
    skipped_tokens: tuple[int, ...] = ()
    kind: str = "qk"
    blocks: Sequence[int] = tuple(range(99))
    normalised: bool = True
    maps: list[torch.Tensor] = field(default_factory=list)
    followed: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)

    def __call__(self, query, key, value, text_tokens):
        rows, _, length, width = query.shape
        sources = rows - len(self.edits)
        picture = list(range(text_tokens, length))
        query, key, value = query.clone(), key.clone(), value.clone()
        output = torch.zeros_like(value)
        layer = len(self.maps)
        stored = torch.zeros(*query.shape[:3], length, dtype=query.dtype)
        for row in range(rows):
            edit = self.edits[row - sources] if row >= sources else None
            inside = edit is not None and (edit.blocks is None or self.blocks[layer] in edit.blocks)
            controlled = inside and layer not in self.skipped_layers
            if controlled and edit.open_[self.step] and self.kind != "p2p":
                for token in picture:
                    if token - text_tokens not in self.skipped_tokens:
                        key[row, :, token] = key[edit.source, :, token]
                        own = query if self.kind == "qk" else value
                        own[row, :, token] = own[edit.source, :, token]
            logits = torch.einsum("hqd,hkd->hqk", query[row], key[row]) / width**0.5
            stored[row] = logits.exp() / logits.exp().sum(-1, keepdim=True)
            if controlled and self.kind == "p2p":
                mixed = self.mixed(edit, stored[edit.source], stored[row], text_tokens)
                for token in picture:
                    if token - text_tokens not in self.skipped_tokens:
                        stored[row, :, token] = mixed[:, token]
            output[row] = torch.einsum("hqk,hkd->hqd", stored[row], value[row])
            if edit is not None and edit.mask is not None:
                for number, token in enumerate(picture):
                    share = edit.mask[number]
                    output[row, :, token] = (
                        share * output[row, :, token] + (1 - share) * output[edit.source, :, token]
                    )
        self.maps.append(stored)
        if text_tokens:
            self.follow(stored[:, :, text_tokens:].sum(1), sources)
        return output

    def mixed(self, edit, source, own, text_tokens):
        """A map [heads,T+N,T+N] of p2p, column by column."""
        replaced, result = source.clone(), own.clone()
        for token in range(text_tokens):
            taken = (source[..., :text_tokens] * edit.matrix[:, token]).sum(-1)
            replaced[..., token] = taken + own[..., token] * edit.own[token]
        for token in range(own.shape[-1]):
            text = token < text_tokens
            gate = edit.text_gate[self.step, token] if text else float(edit.open_[self.step])
            result[..., token] = gate * replaced[..., token] + (1 - gate) * own[..., token]
        return result / result.sum(-1, keepdim=True) if self.normalised else result

    def follow(self, maps, sources):
        """Sum up the attention [R,N,T+N] to the followed words."""
        for number, edit in enumerate(self.edits):
            for name, row, words in (
                ("source", edit.source, edit.source_words),
                ("target", sources + number, edit.target_words),
            ):
                found = maps[row][:, list(words)].sum(-1)
                self.followed[name, number] = self.followed.get((name, number), 0) + found
