"""Metrics of the measure stage, each turned on by a key of the section ``measure``.

They apply to every task that they suit, in runs with this stage. ``compute`` is None: the stage computes them
(:mod:`stages.measure.stage`).
"""

from stages.score.evidence import Evidence
from stages.score.metric import COSINE, NONNEGATIVE, Metric
from stages.tasks import Task

DISTANCE = (0.0, 2.0)
"""The range of one minus a cosine."""


def _measured_elsewhere(evidence: Evidence) -> None:
    return None


def _needs_an_outside(task: Task) -> str:
    return "needs a region that leaves something outside" if task.region == "all" else ""


def _needs_a_drawn_edge(task: Task) -> str:
    drawn = task.drawn and task.region != "all"
    return "" if drawn else "needs a mask with an edge: a region, drawn by a diffusion model"


def _needs_counted_objects(task: Task) -> str:
    drawn = task.drawn and task.ground != "none"
    return "" if drawn else "needs objects to count: ground one, and have Tar drawn"


def _needs_a_drawn_object(task: Task) -> str:
    drawn = task.drawn and task.region == "object"
    return "" if drawn else "needs an object that is drawn"


METRICS = (
    Metric(
        "seam",
        "mean RGB step of the drawn picture across the mask's edge, beyond that of the picture it was "
        "pasted into, where measure.seam is true",
        "measure.seam",
        _measured_elsewhere,
        sense="less",
        unsuited=_needs_a_drawn_edge,
    ),
    Metric(
        "count_error",
        "how many objects more or fewer than asked appear or disappear, by the detector, where "
        "measure.counts is true",
        "measure.counts",
        _measured_elsewhere,
        NONNEGATIVE,
        sense="less",
        unsuited=_needs_counted_objects,
    ),
    Metric(
        "region_text",
        "CLIP similarity of Tar, cut to the edited object, and the words for what is there, where "
        "measure.region_clip is true",
        "measure.region_clip",
        _measured_elsewhere,
        COSINE,
        sense="more",
        unsuited=_needs_a_drawn_object,
    ),
    Metric(
        "region_direction",
        "CLIP similarity of the change of the pictures, cut to the edited object, and the change of the "
        "words for it, where measure.region_clip is true",
        "measure.region_clip",
        _measured_elsewhere,
        COSINE,
        sense="more",
        unsuited=_needs_a_drawn_object,
    ),
    Metric(
        "lpips_outside",
        "LPIPS of I and Tar where nothing may change, where measure.lpips names a network",
        "measure.lpips",
        _measured_elsewhere,
        NONNEGATIVE,
        sense="less",
        unsuited=_needs_an_outside,
    ),
    Metric(
        "dino_outside",
        "DINOv2 distance (1 - cosine) of I and Tar where nothing may change, where measure.dino names one",
        "measure.dino",
        _measured_elsewhere,
        DISTANCE,
        sense="less",
        unsuited=_needs_an_outside,
    ),
)
