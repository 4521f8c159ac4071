"""Prompt-to-Prompt's maps on joint attention, applied to values without being stored.

In a U-Net the attentions over text and over the picture are normalised apart. Here they share one softmax,
and mixing columns of two maps leaves rows that do not sum to 1. An edit's map, of its picture's queries, is
therefore divided by its row sums, which are its output for values of one:

    P_edit = (P_s B diag(a) + P_t diag(1 - a + a rho)) / row sums

B and rho are those of the text's columns (:mod:`stages.edit.prompt_to_prompt.alignment`); a picture's column
has B = 1 and rho = 0. The gate a of the picture's columns is that of ``self``, the text's that of ``cross``.
If the source is an edit itself, P_s has this form too: maps are normalised at every turn.
"""

import torch
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.joint_control import JointControl


class ControlledMaps:
    """The maps of all edits in one layer.

    Args:
        query, key: of all rows [R,heads,T+N,D].
        text: T, the number of the text's tokens, which come first; 0 in layers that see the picture alone.
        control: the batch's.
        block: of the layer.
    """

    def __init__(
        self, query: torch.Tensor, key: torch.Tensor, text: int, control: JointControl, block: int
    ) -> None:
        self.query, self.key, self.text, self.control = query[:, :, text:], key, text, control
        picture = self.query.shape[2]
        gate = control.gate_at(block, text, picture)
        rho = functional.pad(control.own[:, :text], (0, picture))
        self.gate = gate[:, None, :, None]
        self.own = (1 - gate + gate * rho)[:, None, :, None]
        self.keeps_own = control.own_shares[block]
        self.sums = key.new_ones(len(gate), key.shape[1], picture, 1)
        """Row sums of the maps of the turns so far [E,heads,N,1]."""

    def of_edits(self, values: torch.Tensor) -> torch.Tensor:
        """P_edit V [E,heads,N,d] for values [E,heads,T+N,d]."""
        outputs = []
        for turn, edits in enumerate(self.control.turns):
            widened = functional.pad(values[edits], (0, 1), value=1)
            mixed = self._mixed(turn, torch.arange(len(values), device=values.device)[edits], widened)
            self.sums[edits] = mixed[..., -1:]
            outputs.append(mixed[..., :-1] / mixed[..., -1:])
        return torch.cat(outputs)

    def of_sources(self, values: torch.Tensor) -> torch.Tensor:
        """P_s V of each edit's source [E,heads,N,d]; after :meth:`of_edits`."""
        numbers = torch.arange(len(values), device=values.device)
        return torch.cat(
            [
                self._of_sources(turn, numbers[edits], values[edits])
                for turn, edits in enumerate(self.control.turns)
            ]
        )

    def _mixed(self, turn: int, edits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The output of the maps of some edits of a turn before the division."""
        handed = self.gate[edits] * values
        if self.text:
            words, picture = handed.tensor_split([self.text], 2)
            matrix = self.control.matrix[edits][:, None]
            handed = torch.cat([matrix @ words, picture], 2)
        output = self._of_sources(turn, edits, handed)
        if self.keeps_own:
            output = output + self._attend(self.control.cond_edits[edits], self.own[edits] * values)
        return output

    def _of_sources(self, turn: int, edits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        rows = self.control.source_rows[edits]
        if turn == 0:
            return self._attend(rows + self.control.halves[-1], values)
        parents = rows - self.control.sources
        return self._mixed(turn - 1, parents, values) / self.sums[parents]

    def _attend(self, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return attend(self.query[rows], self.key[rows], values)


def attend(query: torch.Tensor, key: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """SDPA for values [R,heads,L,d] of another width than queries and keys [...,D].

    All are filled up with zeros to one width, as the fused kernels need, which store no map.
    """
    narrow, wanted = query.shape[-1], values.shape[-1]
    width = max(narrow, wanted + -wanted % 8)
    filled = [functional.pad(heads, (0, width - heads.shape[-1])) for heads in (query, key, values)]
    return sdpa(filled[0], filled[1], filled[2], scale=narrow**-0.5)[..., :wanted]
