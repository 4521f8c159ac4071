"""The instrument for ``seam``."""

from collections.abc import Sequence

from stages.measure.instrument import Values, suits
from stages.pictures.fidelity import as_float
from stages.pictures.region import MaskedRegion
from stages.pictures.seam import seam
from stages.score.evidence import Row
from stages.score.metric import Scores


class Seams:
    """Compares each candidate with the anchor along the edge of the candidate's own mask."""

    def measure(self, rows: Sequence[Row], batch: int) -> Values:
        return [_of_row(row) for row in rows]


def _of_row(row: Row) -> list[Scores]:
    anchor, *drawn = row.images
    if not suits(row, "seam"):
        return [{} for _ in drawn]
    region = MaskedRegion.from_row(row.record)
    found: list[Scores] = []
    for candidate, image in zip(row.record["candidates"], drawn, strict=True):
        mask = region.edit_mask(row.task.region, candidate["mask"])
        found.append({"seam": seam(as_float(anchor), as_float(image), mask)})
    return found
