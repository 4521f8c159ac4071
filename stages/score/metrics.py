"""The metrics: their names, and the phrases that the detector ones look for."""

import math
from collections.abc import Mapping

from stages.tasks import Bounds, Task, Tasks

METRICS = {
    "clip_text_input": "CLIP similarity of I and the input caption",
    "clip_text_output": "CLIP similarity of Tar and the output caption",
    "clip_direction": "CLIP similarity of the change of the pictures and the change of the captions",
    "clip_image": "CLIP similarity of I and Tar",
    "change": "mean |Tar - I| over RGB in [0,1]",
    "change_inside": "mean |Tar - I| over RGB in [0,1], where the edit is",
    "change_outside": "mean |Tar - I| over RGB in [0,1], where nothing may change",
    "change_outside_raw": "change_outside before the outside was pasted from the anchor",
    "ssim_outside": "structural similarity of I and Tar, where nothing may change",
    "gmsd": "gradient magnitude similarity deviation of I and Tar: whether things stand where they stood",
    "present": "the detector's best score in Tar for what must be there",
    "present_overlap": "share of that detection's box that lies where the edit is",
    "absent": "the detector's best score in Tar for what must be gone (an upper bound)",
    "absent_before": "the detector's best score in I, where the edit is, for what Tar adds (an upper bound)",
    "mask_fit": "overlap (IoU) of the frames around the grounded boxes and around the precise mask",
    "clipped": "share of pixels that are pure black or pure white, of I or Tar: the greater one",
    "contrast": "standard deviation of the grey values in [0,1], of I, Tar or the drawing before its outside "
    "was pasted: the least one; a flat picture has none",
    "roughness": "mean difference of neighbouring grey values over their deviation, of I or Tar: the greater "
    "one; noise has 1.1",
    "dino": "DINOv2 similarity of I and Tar, where score.dino names a model",
    "depth_change": "mean |difference| of I's and Tar's depth maps in [0,1], where score.depth names a model",
    "text_read": "1 - character error rate of what is read where text was written, where score.ocr is true",
    "aesthetic": "linear probe of CLIP's embedding of I or Tar, the lower, where score.aesthetic names one",
    "nsfw": "linear probe of CLIP's embedding of I or Tar, the higher, where score.nsfw names one",
}
"""Name and meaning of every metric. A metric that does not apply to a task is null."""

OPTIONAL = {
    "dino": "dino",
    "depth_change": "depth",
    "text_read": "ocr",
    "aesthetic": "aesthetic",
    "nsfw": "nsfw",
}
"""Metrics that are null unless the section ``score`` sets the key of their model, and that key.

Of the others, one that a task lists and a row lacks could not be measured: a bound on it is broken."""


LOGITS = ("aesthetic", "nsfw")
"""A probe's scale is its own."""
COSINES = ("clip_text_input", "clip_text_output", "clip_direction", "clip_image", "ssim_outside", "dino")


def range_of(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have."""
    if metric in LOGITS:
        return -math.inf, math.inf
    return (-1.0, 1.0) if metric in COSINES else (0.0, 1.0)


def check_bounds(bounds: Mapping[str, Bounds], key: str) -> None:
    """Check that the metrics under a key exist, and that values of theirs can be within the bounds.

    Raises:
        ValueError: names the key and the metric.
    """
    for metric, bound in bounds.items():
        if metric not in METRICS:
            raise ValueError(f"{key}.{metric}: unknown metric; known: {', '.join(METRICS)}")
        low, high = range_of(metric)
        if (bound.min is not None and bound.min > high) or (bound.max is not None and bound.max < low):
            raise ValueError(f"{key}.{metric}: it is between {low:g} and {high:g}, so nothing could pass")


def check_metrics(tasks: Tasks) -> None:
    """Check that every task lists metrics that exist and that its fields imply.

    Raises:
        ValueError: names the task's file and the metric.
    """
    for task in tasks.values():
        check_bounds(task.thresholds, f"prompts/{task.name}.yaml: thresholds")
        for metric in task.metrics:
            where = f"prompts/{task.name}.yaml: key 'metrics': {metric!r}"
            if metric not in METRICS:
                raise ValueError(f"{where} is unknown; known: {', '.join(METRICS)}")
            makes = task.fields.edited_object == "in_output"
            if metric in ("present", "present_overlap", "absent_before") and not makes:
                raise ValueError(f"{where} needs fields.edited_object: in_output")
            if metric in ("mask_fit", "absent_before") and task.ground == "none":
                raise ValueError(f"{where} needs boxes: ground an object")
            if metric == "absent" and _phrase_gone(task) is None:
                raise ValueError(
                    f"{where} needs fields.edited_object: not_in_output, or a changed caption whose "
                    "original_object is in_input"
                )


def detector_phrase(task: Task, metric: str, row: Mapping[str, str | None]) -> str | None:
    """The phrase that a detector metric looks for; None if the row has none."""
    field = _phrase_gone(task) if metric == "absent" else "edited_object"
    return row[field] or None if field else None


def _phrase_gone(task: Task) -> str | None:
    """The field of an answer that names what Tar no longer shows."""
    if task.fields.edited_object == "not_in_output":
        return "edited_object"
    if task.fields.original_object == "in_input" and task.fields.caption == "changed":
        return "original_object"
    return None
