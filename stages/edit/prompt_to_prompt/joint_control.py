"""The state of a control of joint attention over one batch: the gates of :mod:`control`, block by block."""

from collections.abc import Sequence

import torch

from stages.edit.config import Kind
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.fusion import Fusion


class JointControl(PromptToPrompt):
    """What the cores of joint attention read, and the changes to the latents after each step.

    Args:
        edits: the edit rows in batch order; each with its ``blocks``.
        sources: number of source rows; they come before the edits.
        steps: number of sampling steps.
        kind: what the edits take.
        tokens: of the picture, for LocalBlend.
        device, dtype: the network's.
        guided, mask_attention, fusion: as in :class:`PromptToPrompt`.
        compiled: the same, but for p2p: mixed maps are divided by their sums, so a closed gate computed as
            one of 0 would change last bits. There each combination of open gates is a graph.
    """

    def __init__(
        self,
        edits: Sequence[EditRow],
        sources: int,
        steps: int,
        kind: Kind,
        tokens: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        guided: bool = True,
        mask_attention: bool = True,
        fusion: Fusion = "schedule",
        compiled: bool = False,
    ) -> None:
        super().__init__(
            edits,
            sources,
            steps,
            tokens,
            device,
            dtype,
            guided=guided,
            mask_attention=mask_attention,
            fusion=fusion,
            blend_tokens=tokens,
            compiled=compiled,
        )
        self.kind = kind
        self.other_rows = torch.arange(sources + self.halves[-1], device=device)
        """The rows whose maps are their own in p2p: all but the conditional edits, which come last."""
        of_edits = [edit.blocks for edit in edits if edit.blocks is not None]
        assert len(of_edits) == len(edits), "an edit of a transformer says in which blocks it is controlled"
        self.in_block = torch.stack(of_edits, 1).to(device, dtype)
        """1 where the gates of an edit act [blocks,E]."""
        # As in PromptToPrompt: tables over the steps, from which fixed tensors are filled, so that a compiled
        # network is not compiled again.
        self._row_table, self._row_opens = self._borrowed_by_block(edits, of_edits, device)
        self.rows = self._row_table[0].clone()
        """For each row, by block, the row whose picture queries and keys, or keys and values, it uses
        [blocks,R]."""
        pictures = torch.stack([edit.self_ for edit in edits], 1)
        self._picture_table = pictures.to(device, dtype)
        self.picture_gate = self._picture_table[0].clone()
        """b [E], 1 while the picture's columns of the map are the source's, in p2p."""
        self._map_opens, self._own_shares = self._maps_open(edits, of_edits, pictures)
        self.opens: list[bool] = []
        """By block, whether any edit takes anything in this step."""
        self.own_shares: list[bool] = []
        """By block, whether any edit keeps a share of its own map in this step, in p2p."""

    def _borrowed_by_block(
        self, edits: Sequence[EditRow], blocks: Sequence[torch.Tensor], device: torch.device
    ) -> tuple[torch.Tensor, list[list[bool]]]:
        """By step and block, the row that each row borrows from [steps,blocks,R], and whether any does."""
        total = self.halves[-1] + self.sources + len(edits)
        table = torch.arange(total).repeat(self.steps, len(blocks[0]), 1)
        for row, (edit, in_block) in enumerate(zip(edits, blocks, strict=True), self.sources):
            gate = edit.self_[:, None] & in_block
            for start in self.halves if edit.shared else self.halves[-1:]:
                # The source's own entry: if the source borrows too (a session), the edit uses the same row.
                table[..., start + row] = torch.where(gate, table[..., start + edit.source], start + row)
        borrows = (table != torch.arange(total)).any(-1).tolist()
        return table.to(device), borrows

    def _maps_open(
        self, edits: Sequence[EditRow], blocks: Sequence[torch.Tensor], pictures: torch.Tensor
    ) -> tuple[list[list[bool]], list[list[bool]]]:
        """By step and block: whether any map takes from the source's; whether any keeps some of its own."""
        texts = torch.stack([edit.cross for edit in edits], 1)  # [steps,E,T]
        new = torch.stack([edit.tokens.own for edit in edits]) != 0
        in_block = torch.stack(list(blocks), 1)  # [blocks,E]
        takes = pictures | (texts != 0).any(-1)
        keeps = ~pictures | ((texts == 0) | new).any(-1)
        opens = (takes[:, None] & in_block).any(-1)
        own = (keeps[:, None] | ~in_block).any(-1)
        return opens.tolist(), own.tolist()

    def before_step(self, step: int) -> None:
        """Set the gates of a step."""
        super().before_step(step)
        self.rows.copy_(self._row_table[step])
        self.picture_gate.copy_(self._picture_table[step])
        if self.kind == "p2p":
            self.opens = self._map_opens[step]
        else:
            self.opens = [self._compiled or opens for opens in self._row_opens[step]]
        self.own_shares = self._own_shares[step]

    def gate_at(self, block: int, text: int, picture: int) -> torch.Tensor:
        """The gate of the map's columns in a layer of p2p, [E,text + picture]."""
        whole = self.picture_gate[:, None].expand(-1, picture)
        return torch.cat([self.gate[:, :text], whole], 1) * self.in_block[block][:, None]
