"""The region of an edit: the object that was grounded and segmented in the anchor picture, and its masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from typing_extensions import Self

from stages.candidate import Policy
from stages.pictures.masks import disc, fill_boxes
from stages.pictures.png import decode_mask
from stages.tasks import RegionKind

FEATHER = 8
"""Largest width in pixels of a background mask's edge: the size of one latent pixel."""
MARGIN = 1 / 16
"""Distance that the metrics' "outside" keeps from an edit, as a fraction of the picture's shorter side."""


@dataclass(frozen=True, eq=False)
class Region:
    """The grounded object of a row."""

    precise: np.ndarray
    """The segmenter's mask, float32 [h,w] in [0,1]."""
    boxes: np.ndarray
    """The detector's boxes, float32 [n,4]: x0, y0, x1, y1 in pixels."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The region of a row with the columns of the mask stage.

        Raises:
            ValueError: a mask cannot be decoded.
        """
        return cls(decode_mask(row["precise_mask"]), _boxes(row))

    def metric_regions(self, kind: RegionKind) -> tuple[np.ndarray, np.ndarray | None]:
        """Where a metric expects the edit, and where nothing may change; the same for all mask policies.

        Args:
            kind: what the task edits.

        Returns:
            ``inside``, bool [h,w], and ``outside``, bool [h,w] or None without an outside. For the kind
            ``object``, the outside is the complement of the dilated union of precise mask and boxes. For
            ``background``, it is the eroded object. Either can be empty (all False).
        """
        shown = self.precise > 0.5
        if kind == "all":
            return np.ones_like(shown), None
        radius = max(1, round(MARGIN * min(self.precise.shape)))
        if kind == "background":
            object_core = cv2.erode(shown.astype(np.uint8), disc(max(1, radius // 2)))
            return ~shown, object_core > 0
        touched = shown | (fill_boxes(self.boxes, self.precise.shape) > 0)
        return shown, cv2.dilate(touched.astype(np.uint8), disc(radius)) == 0


@dataclass(frozen=True, eq=False)
class MaskedRegion(Region):
    """A region with all its masks, for drawing or publishing an edit."""

    smooth: np.ndarray
    """The precise mask, dilated and blurred, float32 [h,w] in [0,1]."""
    soft: np.ndarray
    """The blend of precise, smooth and box mask, float32 [h,w] in [0,1]."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        precise, smooth, soft = (decode_mask(row[f"{name}_mask"]) for name in ("precise", "smooth", "soft"))
        return cls(precise, _boxes(row), smooth, soft)

    def edit_mask(self, kind: RegionKind, policy: Policy) -> np.ndarray:
        """The mask M, float32 [h,w] in [0,1]: the degree to which a candidate's pixels are edited.

        Kind ``object``: the mask named by the policy. ``background``: everything except the object, with an
        edge at most one latent pixel wide. ``all``, and the policy ``none``: 1 everywhere.

        Args:
            kind: what the task edits.
            policy: the candidate's.

        Raises:
            ValueError: the policy is ``box`` for a background.
        """
        if kind == "all" or policy == "none":
            return np.ones_like(self.precise)
        if kind == "background":
            if policy == "box":
                raise ValueError("a box would freeze a rectangle of old background: use another mask policy")
            reach = max(1, round(min(FEATHER, MARGIN * min(self.precise.shape)) / 2))
            edge = (2 * reach + 1, 2 * reach + 1)
            return np.clip(1 - cv2.GaussianBlur(self.precise, edge, reach / 2), 0, 1)
        if policy == "box":
            return fill_boxes(self.boxes, self.precise.shape)
        return {"soft": self.soft, "precise": self.precise, "smooth": self.smooth}[policy]


def _boxes(row: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(row["boxes"], np.float32).reshape(-1, 4)
