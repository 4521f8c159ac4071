"""A call before the stored tokens are numbered: which tokens it reads, and then the call itself."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from stages.edit.sparse.batch import Batch
from stages.edit.sparse.calls import Call, Moves
from stages.edit.sparse.neighbours import Kind, kinds_of, neighbours, positions
from stages.edit.sparse.stores import Store
from stages.edit.sparse.token_lists import Size


class Draft:
    """A call of ``size`` edits of one turn; the last of ``edits`` is repeated.

    Args:
        number: of the call in its step.
        turn: of its edits.
        edits: at least one, at most ``size``.
        lists: by edit its tokens by level; edits without lists are computed whole.
        batch: the rows.
        sizes: sizes of the feature maps by level.
    """

    def __init__(
        self,
        number: int,
        turn: int,
        edits: Sequence[int],
        size: int,
        lists: Mapping[int, list[torch.Tensor]],
        batch: Batch,
        sizes: Sequence[Size],
    ) -> None:
        self.number, self.turn, self.batch, self.sizes = number, turn, batch, sizes
        self.distinct, self.edits = len(edits), [*edits, *[edits[-1]] * (size - len(edits))]
        self.lists = None
        if edits[0] in lists:
            self.lists = [torch.stack(level) for level in zip(*(lists[e] for e in self.edits), strict=True)]
        self.origins = torch.tensor([batch.origin(edit) for edit in self.edits])
        self._neighbours = [] if self.lists is None else self._read_by_convolutions(self.lists)

    def mark(self, stored: Sequence[Store], read: Sequence[Store]) -> None:
        """Mark the tokens that the call reads."""
        for level, store in enumerate(read):
            store.mark(self.origins, self._tokens(level))
        for kind, tokens in self._neighbours:
            stored[kind.level].mark(self.origins, tokens)

    def call(self, stored: Sequence[Store], read: Sequence[Store], drafts: Sequence["Draft"]) -> Call:
        """The call, after the stores are numbered; ``drafts`` are those of all calls of the step."""
        batch, halves, edits = self.batch, range(self.batch.halves), torch.tensor(self.edits)
        pictures, distinct = len(batch.origins), torch.arange(self.distinct)
        later = [draft for draft in drafts if draft.turn > self.turn and draft.lists is not None]
        return Call(
            self.number,
            self.turn,
            edits,
            torch.cat([distinct + half * len(edits) for half in halves]),
            torch.cat([edits + batch.sources + half * batch.rows for half in halves]),
            torch.cat([self.origins + half * pictures for half in halves]),
            self.lists,
            {kind: self._gather(stored[kind.level], kind, tokens) for kind, tokens in self._neighbours},
            self._carried(),
            [self._taken(store, level) for level, store in enumerate(stored)],
            [self._taken(store, level) for level, store in enumerate(read)],
            {draft.number: moves for draft in later if (moves := self._replaced(draft)) is not None},
        )

    def _tokens(self, level: int) -> torch.Tensor:
        if self.lists is not None:
            return self.lists[level]
        height, width = self.sizes[level]
        return torch.arange(height * width).expand(len(self.edits), -1)

    def _read_by_convolutions(self, lists: Sequence[torch.Tensor]) -> list[tuple[Kind, torch.Tensor]]:
        """The tokens that each kind of convolution reads for the lists."""
        return [
            (kind, neighbours(lists[kind.output_level], kind, self.sizes))
            for kind in kinds_of(len(self.sizes))
        ]

    def _gather(self, store: Store, kind: Kind, tokens: torch.Tensor) -> torch.Tensor:
        own, inside, halves = self._tokens(kind.level), tokens.clamp(min=0), self.batch.halves
        edits, length = own.shape
        places = positions(own, store.kept.shape[1]).gather(1, inside.flatten(1)).view_as(tokens)
        tables = []
        for half in range(halves):
            first = halves * store.count + (half * edits + torch.arange(edits)) * length
            theirs = store.at(self.origins, inside) + half * store.count
            index = torch.where(places >= 0, places + first[:, None, None], theirs)
            tables.append(torch.where(tokens < 0, halves * (store.count + edits * length), index))
        return torch.cat(tables).flatten()

    def _carriers(self) -> Iterator[tuple[int, list[int]]]:
        """The call's rows that are carriers, with the stored pictures that take them."""
        for row, edit in enumerate(self.edits[: self.distinct]):
            if pictures := self.batch.carried(edit):
                yield row, pictures

    def _carried(self) -> Moves | None:
        pairs = [(picture, row) for row, pictures in self._carriers() for picture in pictures]
        if not pairs:
            return None
        pictures, rows = torch.tensor(pairs).unbind(1)
        return self._in_halves(pictures, len(self.batch.origins), rows, len(self.edits))

    def _taken(self, store: Store, level: int) -> Moves | None:
        """The stored tokens that take the call's."""
        found = []
        for row, pictures in self._carriers():
            tokens = self._tokens(level)[row]
            places, which = store.taken(pictures, tokens)
            found.append((places, row * len(tokens) + which))
        if not found:
            return None
        places, rows = (torch.cat(each) for each in zip(*found, strict=True))
        return self._in_halves(places, store.count, rows, self._tokens(level).numel())

    def _replaced(self, later: "Draft") -> list[Moves] | None:
        """By level, the tokens that a later call will replace and that are this call's."""
        pairs = [
            (row, child)
            for row, pictures in self._carriers()
            for child, origin in enumerate(later.origins.tolist())
            if origin in pictures
        ]
        if not pairs:
            return None
        moves = []
        for level, (height, width) in enumerate(self.sizes):
            own, theirs = self._tokens(level), later._tokens(level)
            targets, rows = [], []
            for row, child in pairs:
                place = positions(own[row : row + 1], height * width)[0][theirs[child]]
                (which,) = (place >= 0).nonzero(as_tuple=True)
                targets.append(child * theirs.shape[1] + which)
                rows.append(row * own.shape[1] + place[which])
            moves.append(self._in_halves(torch.cat(targets), theirs.numel(), torch.cat(rows), own.numel()))
        return moves

    def _in_halves(self, targets: torch.Tensor, size: int, rows: torch.Tensor, length: int) -> Moves:
        """The same moves in every half; a half has ``size`` targets and ``length`` rows."""
        halves = range(self.batch.halves)
        return (
            torch.cat([targets + half * size for half in halves]),
            torch.cat([rows + half * length for half in halves]),
        )
