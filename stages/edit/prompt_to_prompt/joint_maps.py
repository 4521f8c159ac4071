"""Prompt-to-Prompt's maps on joint attention, applied to values without being stored.

In a U-Net the attentions over text and over the picture are normalised apart. Here they share one softmax,
and mixing columns of two maps leaves rows that do not sum to 1. An edit's map, of its picture's queries, is
therefore divided by its row sums, which are its output for values of one:

    P_edit = (P_s B diag(a) + P_t diag(1 - a + a rho)) / row sums

B and rho are those of the text's columns (:mod:`stages.edit.prompt_to_prompt.alignment`); a picture's column
has B = 1 and rho = 0. The gate a of the picture's columns is that of ``self``, the text's that of ``cross``.
If the source is an edit itself, P_s has this form too: maps are normalised at every turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.joint_control import JointControl


@dataclass(frozen=True)
class Columns:
    """What is done to the columns of edits' maps, in the form of operations on the values' rows.

    Attributes:
        gate: a [E,1,T+N,1].
        own: 1 - a + a rho [E,1,T+N,1].
        matrix: B of the text's columns [E,1,T,T].
        keeps_own: whether ``own`` is not 0 throughout the batch.
    """

    gate: torch.Tensor
    own: torch.Tensor
    matrix: torch.Tensor
    keeps_own: bool

    def of(self, edits: torch.Tensor) -> "Columns":
        """Those of some edits, int64 [n]."""
        return Columns(self.gate[edits], self.own[edits], self.matrix[edits], self.keeps_own)

    def handed(self, values: torch.Tensor) -> torch.Tensor:
        """B (a V), the share of values [E,heads,T+N,d] that the source's map attends to."""
        words, picture = (self.gate * values).tensor_split([self.matrix.shape[-1]], 2)
        return torch.cat([self.matrix @ words, picture], 2)


def columns(control: JointControl, block: int, text: int, picture: int) -> Columns:
    """The columns' operations of all edits in a layer with so many tokens of text and picture."""
    gate = control.gate_at(block, text, picture)
    rho = functional.pad(control.own[:, :text], (0, picture))
    own = 1 - gate + gate * rho
    matrix = control.matrix[:, None, :text, :text]
    return Columns(gate[:, None, :, None], own[:, None, :, None], matrix, control.own_shares[block])


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
        self.query, self.key, self.control = query[:, :, text:], key, control
        self.columns = columns(control, block, text, self.query.shape[2])
        self.sums = key.new_ones(len(control.edit_rows), key.shape[1], self.query.shape[2], 1)
        """Row sums of the maps of the turns so far [E,heads,N,1]."""

    def of_edits(self, values: torch.Tensor) -> torch.Tensor:
        """P_edit V [E,heads,N,d] for values [E,heads,T+N,d]."""
        outputs = []
        for turn, edits in self._turns():
            output, self.sums[edits] = divided(self._mixed(turn, edits, with_ones(values[edits])))
            outputs.append(output)
        return torch.cat(outputs)

    def of_sources(self, values: torch.Tensor) -> torch.Tensor:
        """P_s V of each edit's source [E,heads,N,d]; after :meth:`of_edits`."""
        return torch.cat([self._of_sources(turn, edits, values[edits]) for turn, edits in self._turns()])

    def _turns(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The edits of each turn, int64."""
        numbers = torch.arange(len(self.sums), device=self.sums.device)
        for turn, edits in enumerate(self.control.turns):
            yield turn, numbers[edits]

    def _mixed(self, turn: int, edits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The output of the maps of some edits of a turn before the division."""
        chosen = self.columns.of(edits)
        output = self._of_sources(turn, edits, chosen.handed(values))
        if chosen.keeps_own:
            output = output + self._attend(self.control.cond_edits[edits], chosen.own * values)
        return output

    def _of_sources(self, turn: int, edits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        rows = self.control.source_rows[edits]
        if turn == 0:
            return self._attend(rows + self.control.halves[-1], values)
        parents = rows - self.control.sources
        return self._mixed(turn - 1, parents, values) / self.sums[parents]

    def _attend(self, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return attend(self.query[rows], self.key[rows], values)


def with_ones(values: torch.Tensor) -> torch.Tensor:
    """Values [...,d] with a column of ones [...,d+1], whose output is the row sums."""
    return functional.pad(values, (0, 1), value=1)


def divided(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The output [...,d] for values with ones, divided by the row sums, and the sums [...,1]."""
    return output[..., :-1] / output[..., -1:], output[..., -1:]


def attend(query: torch.Tensor, key: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """SDPA for values [R,heads,L,d] of another width than queries and keys [...,D].

    All are filled up with zeros to one width, as the fused kernels need, which store no map.
    """
    narrow, wanted = query.shape[-1], values.shape[-1]
    width = max(narrow, wanted + -wanted % 8)
    filled = [functional.pad(heads, (0, width - heads.shape[-1])) for heads in (query, key, values)]
    return sdpa(filled[0], filled[1], filled[2], scale=narrow**-0.5)[..., :wanted]
