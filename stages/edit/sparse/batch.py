"""The rows of a batch as the sparse U-Net sees them: sources, edits, and which edits are read by others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Batch:
    """A batch of [sources | edits].

    Attributes:
        sources: number of sources.
        source_rows: for each edit the row of its source.
        turns: the edits of each turn.
        halves: 2 if the batch has unconditional rows, else 1.
    """

    sources: int
    source_rows: Sequence[int]
    turns: Sequence[Sequence[int]]
    halves: int

    @property
    def rows(self) -> int:
        """Rows of a half."""
        return self.sources + len(self.source_rows)

    @cached_property
    def stored_rows(self) -> list[int]:
        """The rows of the stored pictures: the sources, then the carriers, the edits that others edit."""
        return [*range(self.sources), *sorted({row for row in self.source_rows if row >= self.sources})]

    @cached_property
    def origins(self) -> list[int]:
        """For each stored picture the stored picture that it is an edit of; a source's is itself."""
        return [row if row < self.sources else self.origin(row - self.sources) for row in self.stored_rows]

    @cached_property
    def roots(self) -> list[int]:
        """For each stored picture the source that its session began with."""
        roots: list[int] = []
        for picture, origin in enumerate(self.origins):
            roots.append(picture if origin == picture else roots[origin])
        return roots

    def origin(self, edit: int) -> int:
        """The stored picture that an edit edits."""
        return self.stored_rows.index(self.source_rows[edit])

    def carried(self, edit: int) -> list[int]:
        """The stored pictures that take an edit's tokens: its own and those that came from it; else none."""
        row = self.sources + edit
        if row not in self.stored_rows:
            return []
        found = [self.stored_rows.index(row)]
        for picture, origin in enumerate(self.origins):
            if origin in found and picture not in found:
                found.append(picture)
        return found
