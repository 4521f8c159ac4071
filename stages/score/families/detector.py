"""Metrics by the detector: is the new object present, and is the removed object gone?"""

import math

from stages.pictures.masks import share_within
from stages.score.evidence import Evidence, Look
from stages.score.metric import Metric, needs_boxes
from stages.tasks import Task


def _needs_made(task: Task) -> str:
    makes = task.fields.edited_object == "in_output"
    return "" if makes else "needs fields.edited_object: in_output"


def _needs_made_in_boxes(task: Task) -> str:
    return _needs_made(task) or needs_boxes(task)


def _needs_gone(task: Task) -> str:
    if _gone(task) is not None:
        return ""
    return "needs fields.edited_object: not_in_output, or a changed caption whose original_object is in_input"


def _made(task: Task) -> Look | None:
    return Look("edited_object", "target")


def _made_before(task: Task) -> Look | None:
    return Look("edited_object", "input")


def _gone(task: Task) -> Look | None:
    """The question for the object that Tar no longer shows."""
    if task.fields.edited_object == "not_in_output":
        return Look("edited_object", "target")
    if task.fields.original_object == "in_input" and task.fields.caption == "changed":
        return Look("original_object", "target")
    return None


def _present(evidence: Evidence) -> float | None:
    found = evidence.detected(_made(evidence.task))
    return found.best_score if found else None


def _present_overlap(evidence: Evidence) -> float | None:
    found = evidence.detected(_made(evidence.task))
    if found is None or math.isnan(found.best_score):
        return None if found is None else math.nan
    return share_within(found.best_box, evidence.inside)


def _absent(evidence: Evidence) -> float | None:
    found = evidence.detected(_gone(evidence.task))
    return found.best_score if found else None


def _absent_before(evidence: Evidence) -> float | None:
    found = evidence.detected(_made_before(evidence.task))
    return found.best_within(evidence.frame) if found else None


METRICS = (
    Metric(
        "present",
        "the detector's best score in Tar for what must be there",
        "detector",
        _present,
        sense="more",
        look=_made,
        unsuited=_needs_made,
    ),
    Metric(
        "present_overlap",
        "share of that detection's box that lies where the edit is",
        "detector",
        _present_overlap,
        sense="more",
        look=_made,
        unsuited=_needs_made,
    ),
    Metric(
        "absent",
        "the detector's best score in Tar for what must be gone (an upper bound)",
        "detector",
        _absent,
        sense="less",
        look=_gone,
        unsuited=_needs_gone,
    ),
    Metric(
        "absent_before",
        "the detector's best score in I, where the edit is, for what Tar adds (an upper bound)",
        "detector",
        _absent_before,
        sense="less",
        look=_made_before,
        unsuited=_needs_made_in_boxes,
    ),
)
