"""The attention of a transformer's block, for its sources and then for edits at their active tokens.

The equations are those of :mod:`stages.edit.prompt_to_prompt.joint`. Queries are an edit's text and the
listed tokens of its picture. Its picture's keys and values are its source's, with those of its active tokens
pasted in.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.prompt_to_prompt.joint_maps import attend, columns, divided, with_ones


@dataclass(frozen=True)
class JointCall:
    """One edit in one step.

    Attributes:
        edit: its number in the batch.
        rows: of the edit in the network's batch, one in each half [halves].
        sources: of its source among the sources of all halves [halves].
        tokens: of the picture that are computed, int64 [L] in increasing order.
        active: the places of the active ones in this list, int64 [n].
    """

    edit: int
    rows: torch.Tensor
    sources: torch.Tensor
    tokens: torch.Tensor
    active: torch.Tensor


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of one layer [R,heads,T+N,D]."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


class SparseJointAttention:
    """The attention of all layers. Without a control it is the ``dense`` one.

    A block is computed for the sources first. Its layers keep the sources' heads until the next block.
    """

    def __init__(self, dense: JointAttention) -> None:
        self.dense = dense
        self.control: JointControl | None = None
        self._call: JointCall | None = None
        self._stored: list[Heads] = []
        self._layers: Iterator[Heads] = iter(())

    def begin_sources(self) -> None:
        """The network computes the sources in a block next; what the block before kept is not needed."""
        self._call, self._stored = None, []

    def begin_edit(self, call: JointCall) -> None:
        """The network computes an edit in the same block next, whose layers run in the same order."""
        self._call, self._layers = call, iter(self._stored)

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, text_tokens: int
    ) -> torch.Tensor:
        """As :class:`JointAttention`.

        Heads are of whole rows [R,heads,T+N,D], or an edit's list [halves,heads,T+L,D].
        """
        if self.control is None:
            return self.dense(query, key, value, text_tokens)
        own = Heads(query, key, value)
        if self._call is None:
            self._stored.append(own)
            return sdpa(query, key, value)
        theirs, call = next(self._layers), self._call
        theirs = Heads(*(heads[call.sources] for heads in (theirs.query, theirs.key, theirs.value)))
        where = text_tokens + call.tokens[call.active]
        pasted = Heads(
            query,
            *(
                torch.cat([mine[:, :, :text_tokens], source[:, :, text_tokens:]], 2).index_copy(
                    2, where, mine.index_select(2, text_tokens + call.active)
                )
                for source, mine in ((theirs.key, key), (theirs.value, value))
            ),
        )
        if not self.control.opens[self.dense.block]:
            return sdpa(pasted.query, pasted.key, pasted.value)
        if self.control.kind == "p2p":
            return _by_maps(pasted, theirs, text_tokens, call, self.control, self.dense.block)
        return _by_pictures(pasted, theirs, text_tokens, call, self.control, self.dense.block)


def _by_pictures(
    own: Heads, theirs: Heads, text: int, call: JointCall, control: JointControl, block: int
) -> torch.Tensor:
    """qk and kv, if the edit borrows in this block."""
    lenders = control.rows[block][call.rows]
    borrows = (lenders != call.rows)[:, None, None, None]
    query, key, value = own.query, own.key, own.value
    key = torch.cat([key[:, :, :text], torch.where(borrows, theirs.key, key)[:, :, text:]], 2)
    if control.kind == "qk":
        listed = theirs.query.index_select(2, text + call.tokens)
        query = torch.cat([query[:, :, :text], torch.where(borrows, listed, query[:, :, text:])], 2)
    else:
        value = torch.cat([value[:, :, :text], torch.where(borrows, theirs.value, value)[:, :, text:]], 2)
    return sdpa(query, key, value)


def _by_maps(
    own: Heads, theirs: Heads, text: int, call: JointCall, control: JointControl, block: int
) -> torch.Tensor:
    """p2p: the mixed map of the conditional row's picture; all else has its own map."""
    edit = torch.tensor([call.edit], device=call.rows.device)
    operations = columns(control, block, text, own.key.shape[2] - text).of(edit)
    values = with_ones(own.value[-1:])
    listed = theirs.query[-1:].index_select(2, text + call.tokens)
    mixed = attend(listed, theirs.key[-1:], operations.handed(values))
    if operations.keeps_own:
        mixed = mixed + attend(own.query[-1:, :, text:], own.key[-1:], operations.own * values)
    picture, _ = divided(mixed)
    parts = [picture]
    if text:
        parts.insert(0, sdpa(own.query[-1:, :, :text], own.key[-1:], own.value[-1:]))
    conditional = torch.cat(parts, 2)
    if len(call.rows) == 1:
        return conditional
    return torch.cat([sdpa(own.query[:1], own.key[:1], own.value[:1]), conditional])
