"""Metrics of the change between the pictures, inside and outside the edited region."""

from types import ModuleType

import numpy as np

from stages.score.metric import COSINE, Metric


def fidelity() -> ModuleType:
    """The module of fidelity measures.

    It imports torch, so it is imported only when pictures are compared.
    """
    from stages.pictures import fidelity as module

    return module


METRICS = (
    Metric(
        "change",
        "mean |Tar - I| over RGB in [0,1]",
        "pictures",
        lambda e: float(np.abs(e.tar - e.i).mean()),
        guard=True,
    ),
    Metric(
        "change_inside",
        "mean |Tar - I| over RGB in [0,1], where the edit is",
        "pictures",
        lambda e: fidelity().mean_change(e.i, e.tar, e.inside),
        guard=True,
    ),
    Metric(
        "change_outside",
        "mean |Tar - I| over RGB in [0,1], where nothing may change",
        "pictures",
        lambda e: fidelity().mean_change(e.i, e.tar, e.outside),
        sense="less",
        guard=True,
    ),
    Metric(
        "change_outside_raw",
        "change_outside before the outside was pasted from the anchor",
        "pictures",
        lambda e: e.candidate["change_outside_raw"],
        sense="less",
        guard=True,
    ),
    Metric(
        "ssim_outside",
        "structural similarity of I and Tar, where nothing may change",
        "pictures",
        lambda e: fidelity().ssim(e.i, e.tar, e.outside),
        COSINE,
        sense="more",
    ),
    Metric(
        "gmsd",
        "gradient magnitude similarity deviation of I and Tar: whether edges stay in place",
        "pictures",
        lambda e: fidelity().gmsd(e.i, e.tar),
        sense="less",
    ),
)
