"""Numbers that are none: NaN and infinity, found where a model's output enters a stage.

As uint8 a picture of NaNs is black, a mask compared with a threshold is empty, and a NaN is within any
bound. So each output of a model is looked at once, before it becomes one of these, and what is not finite
fails its row.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the driver imports the stages, and no model
    import torch


class NotFiniteError(ValueError):
    """A model's output holds NaN or infinity; the message names the stage and the output."""

    def __init__(self, stage: str, output: str) -> None:
        super().__init__(f"{stage}: {output} is not finite (NaN or infinity)")


def finite_rows(values: "torch.Tensor") -> np.ndarray:
    """Which rows of a tensor [n,...] are finite throughout, bool [n]."""
    return values.isfinite().flatten(1).all(1).cpu().numpy()
