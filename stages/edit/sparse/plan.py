"""The calls of one step: which edits are computed together, as lists of which tokens, reading what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from stages.edit.sparse.neighbours import Kind, neighbours, positions
from stages.edit.sparse.token_lists import Size, needed_share, token_lists

EDITS_A_CALL = 1
"""Edits that the U-Net computes in one call. It is fixed, and a call with fewer edits repeats its last one:
shapes then depend on an edit's own list alone, and its drawing does not depend on its neighbours."""


@dataclass(frozen=True)
class Call:
    """Edits that are computed in one call of the U-Net; it has ``halves * EDITS_A_CALL`` rows.

    Attributes:
        edits: positions among the batch's edits, int64 [EDITS_A_CALL].
        kept: the rows of the call that are not repetitions.
        rows: the edits' rows in the U-Net's batch, int64 [rows].
        sources: the rows of their sources among the stored source rows, int64 [rows].
        lists: tokens by level, int64 [EDITS_A_CALL,L]; None: the whole pictures.
        gathers: for each kind of convolution, the rows of [stored | own | zeros] that its outputs read,
            int64 [rows*L*9].
        reads: by level, the places of the list's tokens in the attention's store, int64 [rows,L].
    """

    edits: torch.Tensor
    kept: torch.Tensor
    rows: torch.Tensor
    sources: torch.Tensor
    lists: list[torch.Tensor] | None
    gathers: dict[Kind, torch.Tensor]
    reads: list[torch.Tensor]

    def to(self, device: torch.device) -> "Call":
        """The call with its tensors on a device."""
        lists = None if self.lists is None else [tokens.to(device) for tokens in self.lists]
        gathers = {kind: index.to(device) for kind, index in self.gathers.items()}
        reads = [index.to(device) for index in self.reads]
        edits, kept, rows, sources = (
            index.to(device) for index in (self.edits, self.kept, self.rows, self.sources)
        )
        return Call(edits, kept, rows, sources, lists, gathers, reads)


@dataclass(frozen=True)
class StepPlan:
    """All calls of a step, and what the sources store for them.

    Attributes:
        calls: the calls.
        stored: by level, the source tokens that convolutions read, as places in [source rows * tokens].
        read: by level, the source tokens that attention reads besides keys and values, in the same way.
    """

    calls: list[Call]
    stored: list[torch.Tensor]
    read: list[torch.Tensor]

    def to(self, device: torch.device) -> "StepPlan":
        """The plan with its tensors on a device."""
        stored, read = ([index.to(device) for index in each] for each in (self.stored, self.read))
        return StepPlan([call.to(device) for call in self.calls], stored, read)


def kinds_of(levels: int) -> list[Kind]:
    """All kinds of 3x3 convolutions in a U-Net with so many levels."""
    plain = [Kind(level) for level in range(levels)]
    down = [Kind(level, stride=2) for level in range(levels - 1)]
    return plain + down + [Kind(level, upsamples=True) for level in range(1, levels)]


def plan_step(
    free: Mapping[int, torch.Tensor | None],
    sources: Sequence[int],
    source_rows: int,
    halves: int,
    sizes: Sequence[Size],
) -> StepPlan:
    """Group the edits of a step by the lengths of their lists. An edit without a free token needs no call.

    Args:
        free: for each edit to compute its free tokens, bool [h,w]; None: the whole picture.
        sources: for each edit its source row.
        source_rows: number of source rows.
        halves: 2 if there are unconditional rows, else 1.
        sizes: sizes of the feature maps by level.
    """
    lists: dict[int, list[torch.Tensor]] = {}
    groups: dict[float, list[int]] = {}  # by share; whole pictures come last
    for edit, own in free.items():
        share = 1.0 if own is None else needed_share(own, sizes)
        if own is not None and share < 1:
            lists[edit] = token_lists(own, share, sizes)
        if share > 0:
            groups.setdefault(share, []).append(edit)
    stored, read = ([_Store(source_rows, size) for size in sizes] for _ in range(2))
    drafts = []
    for share, edits in sorted(groups.items()):
        for start in range(0, len(edits), EDITS_A_CALL):
            chosen = edits[start : start + EDITS_A_CALL]
            filled = chosen + [chosen[-1]] * (EDITS_A_CALL - len(chosen))
            own_lists = None
            if share < 1:
                own_lists = [torch.stack(level) for level in zip(*(lists[e] for e in filled), strict=True)]
            source = torch.tensor([sources[edit] for edit in filled])
            draft = _Draft(torch.tensor(filled), len(chosen), own_lists, source)
            draft.mark(stored, read, sizes)
            drafts.append(draft)
    for store in (*stored, *read):
        store.number()
    total = source_rows + len(sources)
    calls = [draft.call(stored, read, [half * total for half in range(halves)], sizes) for draft in drafts]
    return StepPlan(calls, *([store.tokens(halves) for store in stores] for stores in (stored, read)))


class _Store:
    """Which tokens of the sources are stored at one level."""

    def __init__(self, source_rows: int, size: Size) -> None:
        self.kept = torch.zeros(source_rows, size[0] * size[1], dtype=torch.bool)

    def mark(self, source: torch.Tensor, tokens: torch.Tensor) -> None:
        """Store tokens [n,...] of the sources [n]; -1 is no token."""
        for row, wanted in zip(source.tolist(), tokens, strict=True):
            self.kept[row, wanted[wanted >= 0]] = True

    def number(self) -> None:
        """Number the stored tokens; afterwards nothing is marked."""
        self.places = self.kept.flatten().cumsum(0).view_as(self.kept) - 1
        self.count = int(self.kept.sum())

    def tokens(self, halves: int) -> torch.Tensor:
        """The stored tokens as places in [halves * source rows * tokens]."""
        one = self.kept.flatten().nonzero()[:, 0]
        return torch.cat([one + half * self.kept.numel() for half in range(halves)])

    def at(self, source: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The numbers of stored tokens [n,...] of the sources [n]."""
        return self.places[source.view(-1, *[1] * (tokens.ndim - 1)), tokens]


@dataclass
class _Draft:
    """A call before the stored tokens are numbered."""

    edits: torch.Tensor
    distinct: int
    lists: list[torch.Tensor] | None
    source: torch.Tensor

    def mark(self, stored: Sequence[_Store], read: Sequence[_Store], sizes: Sequence[Size]) -> None:
        for level, store in enumerate(read):
            store.mark(self.source, self._tokens(level, sizes))
        for kind, tokens in self._neighbours(sizes):
            stored[kind.level].mark(self.source, tokens)

    def call(
        self, stored: Sequence[_Store], read: Sequence[_Store], halves: Sequence[int], sizes: Sequence[Size]
    ) -> Call:
        """The call; ``halves`` are the first rows of the batch's halves."""
        source_rows = len(stored[0].kept)
        rows = torch.cat([self.edits + source_rows + first for first in halves])
        sources = torch.cat([self.source + half * source_rows for half in range(len(halves))])
        gathers = {
            kind: self._gather(stored[kind.level], kind, tokens, len(halves))
            for kind, tokens in self._neighbours(sizes)
        }
        reads = [
            torch.cat([at + half * store.count for half in range(len(halves))])
            for level, store in enumerate(read)
            for at in [store.at(self.source, self._tokens(level, sizes))]
        ]
        distinct = torch.arange(self.distinct)
        kept = torch.cat([distinct + half * len(self.edits) for half in range(len(halves))])
        return Call(self.edits, kept, rows, sources, self.lists, gathers, reads)

    def _gather(self, store: _Store, kind: Kind, tokens: torch.Tensor, halves: int) -> torch.Tensor:
        own, inside = self._level(kind.level), tokens.clamp(min=0)
        edits, length = own.shape
        places = positions(own, store.kept.shape[1]).gather(1, inside.flatten(1)).view_as(tokens)
        tables = []
        for half in range(halves):
            first = halves * store.count + (half * edits + torch.arange(edits)) * length
            theirs = store.at(self.source, inside) + half * store.count
            index = torch.where(places >= 0, places + first[:, None, None], theirs)
            tables.append(torch.where(tokens < 0, halves * (store.count + edits * length), index))
        return torch.cat(tables).flatten()

    def _level(self, level: int) -> torch.Tensor:
        assert self.lists is not None
        return self.lists[level]

    def _tokens(self, level: int, sizes: Sequence[Size]) -> torch.Tensor:
        if self.lists is not None:
            return self.lists[level]
        height, width = sizes[level]
        return torch.arange(height * width).expand(len(self.edits), -1)

    def _neighbours(self, sizes: Sequence[Size]) -> list[tuple[Kind, torch.Tensor]]:
        if self.lists is None:
            return []
        return [
            (kind, neighbours(self.lists[kind.output_level], kind, sizes)) for kind in kinds_of(len(sizes))
        ]
