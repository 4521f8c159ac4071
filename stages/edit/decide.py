"""The decision about a row with drawn candidates: their published pictures, and what they were drawn by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.base import Decision, failed, kept
from stages.candidate import Candidate
from stages.edit.prompt_to_prompt.recipe import Strength
from stages.edit.request import EditRequest
from stages.edit.threshold import PixelThreshold
from stages.finite import NotFiniteError
from stages.pictures.composite import paste_outside
from stages.pictures.fidelity import as_float, contrast, mean_change
from stages.pictures.pixel_threshold import keep_unchanged, kernel_of
from stages.pictures.png import encode_png
from stages.tasks import Task


@dataclass(frozen=True)
class Drawn:
    """A candidate of a row."""

    number: int
    candidate: Candidate
    strength: Strength


def decide(
    row: EditRequest,
    task: Task,
    chosen: Sequence[Drawn],
    images: np.ndarray,
    finite: np.ndarray,
    anchor: np.ndarray,
    threshold: PixelThreshold | None,
) -> Decision:
    """The decision about a row.

    Args:
        row, task: the row and its task.
        chosen: its candidates.
        images: the pictures, uint8 [1 + slots,H,W,3]: the source, the candidates, and fillings of the batch.
        finite: which of them are finite, bool [1 + slots].
        anchor: the picture that is edited, as published, uint8 [H,W,3].
        threshold: the section ``edit.pixel_threshold``.
    """
    for picture in np.flatnonzero(~finite):
        name = f"the drawing of candidate {picture - 1}" if picture else "the source drawn again"
        return failed(NotFiniteError("edit", name))
    region = row.turn.region
    _, outside = region.metric_regions(task.region)
    candidates = []
    for drawn, image in zip(chosen, images[1:], strict=False):
        raw = mean_change(as_float(anchor), as_float(image), outside)
        contrast_raw = contrast(as_float(image))
        if task.composite:
            image = paste_outside(anchor, image, region.edit_mask(task.region, drawn.candidate.mask))
        for thresholded, version in _versions(anchor, image, threshold):
            candidates.append(
                {
                    "image": encode_png(version),
                    "candidate": drawn.number,
                    "thresholded": thresholded,
                    "mask": drawn.candidate.mask,
                    "cross_until": drawn.strength.cross_until,
                    "self_until": drawn.strength.self_until,
                    "guidance_scale": drawn.strength.guidance_scale,
                    "change_outside_raw": raw,
                    "contrast_raw": contrast_raw,
                }
            )
    drift = float(np.abs(as_float(images[0]) - as_float(row.picture)).mean())
    return kept(anchor=encode_png(anchor), source_drift=drift, candidates=candidates)


def _versions(
    anchor: np.ndarray, image: np.ndarray, settings: PixelThreshold | None
) -> list[tuple[bool, np.ndarray]]:
    """The published versions of a drawn picture, each with whether unchanged pixels were restored."""
    if settings is None:
        return [(False, image)]
    kernel = kernel_of(settings.kernel, anchor.shape)
    held = keep_unchanged(as_float(anchor), as_float(image), settings.alpha, kernel)
    restored = (True, np.round(held * 255).astype(np.uint8))
    return [restored] if settings.mode == "always" else [(False, image), restored]
