"""Checks for NaN and infinity where a model's output enters a stage.

Later they would be invisible: a picture of NaNs becomes black as uint8, a mask of NaNs is empty after a
threshold, and a NaN violates no bound. Therefore each model output is checked once, and a value that is not
finite fails its row.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the driver imports the stages but no model library
    import torch


class NotFiniteError(ValueError):
    """A model's output contains NaN or infinity. The message names the stage and the output."""

    def __init__(self, stage: str, output: str) -> None:
        super().__init__(f"{stage}: {output} is not finite (NaN or infinity)")


def finite_rows(values: "torch.Tensor") -> np.ndarray:
    """Which rows of a tensor [n,...] are entirely finite, bool [n]."""
    return values.isfinite().flatten(1).all(1).cpu().numpy()
