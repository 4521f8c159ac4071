"""Seams: steps of a picture along the edge of the mask through which something was pasted into it."""

import numpy as np


def seam(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> float | None:
    """The mean step across the mask's edge that ``after`` has and ``before`` has not.

    For neighbouring pixels p, q of a row or a column, the mask's step ``w = |M_p - M_q|`` says how much of
    its edge runs between them. ``s(X) = |X_p - X_q|``, averaged over RGB, is a picture's step there, and
    ``e(X) = s(X) - (s(X) one pair before + s(X) one pair after) / 2`` the part of it that stands out from the
    steps on both sides: a smooth gradient or a texture has little. The result is the mean of
    ``max(0, e(after) - max(0, e(before)))``, weighted by w. An edge that was there before does not count. A
    picture that equals ``before`` near the mask's edge has 0.

    Args:
        before: the picture that was pasted into, float [h,w,3] in [0,1].
        after: the result.
        mask: M, float [h,w] in [0,1].

    Returns:
        A value in [0,1]; None if the mask has no edge.
    """
    total = weight = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(mask.astype(np.float64), axis=axis))
        found = np.maximum(0, _excess(after, axis) - np.maximum(0, _excess(before, axis)))
        total += float((steps * found).sum())
        weight += float(steps.sum())
    return total / weight if weight else None


def _excess(picture: np.ndarray, axis: int) -> np.ndarray:
    """Each step along an axis, minus the mean of the steps before and after it."""
    steps = np.abs(np.diff(picture.astype(np.float64), axis=axis)).mean(-1)
    padded = np.pad(steps, [(1, 1) if place == axis else (0, 0) for place in (0, 1)], mode="edge")
    count = steps.shape[axis]
    return steps - (padded.take(range(count), axis) + padded.take(range(2, count + 2), axis)) / 2
