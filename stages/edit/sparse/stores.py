"""Which tokens of the pictures that edits read are stored at one level, and where.

The stored pictures are the sources, then the *carriers*: edits that are sources of a later turn's edits. At
first a carrier's tokens are those of its root, the source that its session began with. When the carrier is
computed, its own tokens take their places.
"""

from collections.abc import Sequence

import torch

from stages.edit.sparse.batch import Batch
from stages.edit.sparse.token_lists import Size


class Store:
    """The stored tokens of one level.

    Args:
        origins: for each stored picture the one that it is an edit of; a source's is its own number. An
            origin comes before its edits.
        size: rows and columns of the level.
    """

    def __init__(self, origins: Sequence[int], size: Size) -> None:
        self.origins, self.size = origins, size
        self.kept = torch.zeros(len(origins), size[0] * size[1], dtype=torch.bool)

    def mark(self, pictures: torch.Tensor, tokens: torch.Tensor) -> None:
        """Store tokens [n,...] of the pictures [n]; -1 is no token."""
        for picture, wanted in zip(pictures.tolist(), tokens, strict=True):
            self.kept[picture, wanted[wanted >= 0]] = True

    def mark_all(self) -> None:
        """Store all tokens of all pictures."""
        self.kept[:] = True

    def number(self) -> None:
        """Number the stored tokens; afterwards nothing is marked. What a carrier has, its origin has too."""
        for picture in reversed(range(len(self.origins))):
            self.kept[self.origins[picture]] |= self.kept[picture]
        self.count = int(self.kept.sum())
        self.places = self.kept.flatten().cumsum(0).view_as(self.kept) - 1

    def at(self, pictures: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The numbers of stored tokens [n,...] of the pictures [n]."""
        return self.places[pictures.view(-1, *[1] * (tokens.ndim - 1)), tokens]

    def first_tokens(self, batch: Batch) -> torch.Tensor:
        """The roots' tokens with which the store begins, as places in [halves * sources * tokens]."""
        pictures, tokens = self.kept.nonzero().unbind(1)
        one, size = torch.tensor(batch.roots)[pictures] * self.kept.shape[1] + tokens, self.kept.shape[1]
        return torch.cat([one + half * batch.sources * size for half in range(batch.halves)])

    def all_places(self, halves: int) -> torch.Tensor:
        """The number of each token of each picture, int64 [halves * pictures, tokens]; -1 if not stored."""
        places = torch.where(self.kept, self.places, -1)
        return torch.cat([torch.where(places < 0, -1, places + half * self.count) for half in range(halves)])

    def taken(self, pictures: Sequence[int], tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where tokens [L] of a carrier go: the places, and which of the tokens.

        ``pictures`` are the carrier and the carriers that came from it: they keep these tokens until they
        have their own.
        """
        places, chosen = [], []
        for picture in pictures:
            (which,) = self.kept[picture, tokens].nonzero(as_tuple=True)
            places.append(self.places[picture, tokens[which]])
            chosen.append(which)
        return torch.cat(places), torch.cat(chosen)
