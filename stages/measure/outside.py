"""The instruments for ``lpips_outside`` and ``dino_outside``: is everything outside the edit as it was?

Each candidate is compared with the anchor after the anchor's own pixels were put into the edit. The two
pictures then differ outside alone, so nothing of the edit leaks into what the networks see there.
"""

from collections.abc import Sequence

import numpy as np

from stages.measure.instrument import Values, suits
from stages.models.dino import Dino
from stages.models.lpips import Lpips
from stages.score.evidence import Row
from stages.score.metric import Scores


class LpipsOutside:
    """The mean of LPIPS's map over the outside."""

    def __init__(self, lpips: Lpips) -> None:
        self.lpips = lpips

    def measure(self, rows: Sequence[Row], batch: int) -> Values:
        found: Values = []
        for row in rows:
            others, outside = _only_outside(row, "lpips_outside")
            if outside is None:
                found.append([{} for _ in row.pairs])
                continue
            maps = self.lpips.maps(row.images[0], others, batch)
            found.append([{"lpips_outside": float(m[outside].mean(dtype=np.float64))} for m in maps])
        return found


class DinoOutside:
    """One minus the cosine of the embeddings."""

    def __init__(self, dino: Dino) -> None:
        self.dino = dino

    def measure(self, rows: Sequence[Row], batch: int) -> Values:
        shown = []
        for row in rows:
            others, outside = _only_outside(row, "dino_outside")
            shown.append([] if outside is None else [row.images[0], *others])
        images = [image for of_row in shown for image in of_row]
        embeddings = iter(self.dino.encode(images, batch) if images else ())
        found: Values = []
        for row, of_row in zip(rows, shown, strict=True):
            encoded = [next(embeddings) for _ in of_row]
            distances: list[Scores] = [{"dino_outside": float(1 - encoded[0] @ one)} for one in encoded[1:]]
            found.append(distances or [{} for _ in row.pairs])
        return found


def _only_outside(row: Row, metric: str) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The candidates with the anchor's pixels inside, and the outside, bool [h,w] (None: there is none)."""
    _, outside = row.metric_regions if suits(row, metric) else (None, None)
    if outside is None or not outside.any():
        return [], None
    anchor = row.images[0]
    return [np.where(outside[..., None], image, anchor) for image in row.images[1:]], outside
