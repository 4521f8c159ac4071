"""Which candidates a row draws: its task's, and more where they are cheap."""

from weakref import WeakKeyDictionary

import torch

from stages.edit.controlled import Controlled
from stages.edit.request import EditRequest
from stages.edit.rounds import RoundCandidates
from stages.edit.sparse.token_lists import Size


class RowCandidates:
    """The numbers of every row's candidates.

    An edit that is computed in its region can cost less than a fourth of a whole one. A row therefore draws
    the further candidates too (``RoundCandidates.further``) if all of them together cost less than one whole
    edit. What they cost follows from the row's own masks, so it does not depend on the row's neighbours.

    Args:
        candidates: of every task in every round.
        controlled: the model that draws them.
        scale: pixels per latent along a side.
    """

    def __init__(self, candidates: RoundCandidates, controlled: Controlled, scale: int) -> None:
        self._candidates, self._controlled, self._scale = candidates, controlled, scale
        self._known: WeakKeyDictionary[EditRequest, range] = WeakKeyDictionary()

    def numbers(self, row: EditRequest) -> range:
        """The numbers of the candidates that a row draws, found once."""
        if row not in self._known:
            own = self._candidates.of(row.turn.task, row.round)
            further = self._candidates.further(row.turn.task, row.round)
            first = self._candidates.before(row.turn.task, row.round)
            several = range(first, first + len(own) + len(further))
            cheap = bool(further) and self.in_regions(row) and self.cost(row, several) < 1
            self._known[row] = several if cheap else several[: len(own)]
        return self._known[row]

    def in_regions(self, row: EditRequest) -> bool:
        """Whether a row's edits are computed in their regions.

        A U-Net computes those with LocalBlend whole, beside lists. A transformer draws rows with LocalBlend
        and later turns whole.
        """
        if not self._controlled.sparse or self._controlled.joint is None:
            return self._controlled.sparse
        own = self._candidates.of(row.turn.task, row.round)
        return not row.history and all(candidate.blend is None for candidate in own)

    def slots(self, row: EditRequest) -> int:
        """Candidates for which a row's batch has room: as many as any row of its turn and round can draw."""
        return self._candidates.most(row.round, cheap=self.in_regions(row))

    def cost(self, row: EditRequest, numbers: range) -> float:
        """What some candidates of a row cost together in their regions, in whole edits.

        One with LocalBlend is computed whole.
        """
        task, size = self._candidates.first[row.turn.task], self._latents(row)
        drawn = [self._candidates.numbered(task.name, number) for number in numbers]
        distinct = sorted({candidate.mask for candidate in drawn})
        masks = [torch.from_numpy(row.turn.region.edit_mask(task.region, policy)) for policy in distinct]
        costs = dict(zip(distinct, self._controlled.costs(torch.stack(masks)[:, None], size), strict=True))
        return sum(1 if each.blend is not None else costs[each.mask] for each in drawn)

    def _latents(self, row: EditRequest) -> Size:
        height, width = (pixels // self._scale for pixels in row.picture.shape[:2])
        return height, width
