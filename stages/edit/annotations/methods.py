"""The annotation for each ``method`` of a task. Annotations with a model load it."""

from collections.abc import Iterator
from functools import partial

from stages.edit.annotations.adjust import draw_adjusted
from stages.edit.annotations.lettering import draw_text
from stages.edit.annotations.marks import Annotation, draw_boxes, draw_mask, draw_sketch
from stages.edit.config import EditConfig
from stages.models.weight_files import check_preprocessor, of_transformers, problems_of
from stages.tasks import Tasks


def load_annotations(config: EditConfig, tasks: Tasks) -> dict[str, Annotation]:
    """The annotations by method. A model is loaded only if a task of the run needs it.

    Raises:
        ValueError: a task needs a model that the manifest does not name.
    """
    annotations: dict[str, Annotation] = {
        "draw_box": draw_boxes,
        "draw_mask": draw_mask,
        "draw_text": draw_text,
        "adjust": draw_adjusted,
        "sketch": draw_sketch,
    }
    for problem in _missing(config, tasks):
        raise ValueError(problem)
    methods = {task.method for task in tasks.values()}
    if config.depth is not None and methods & {"depth", "normal"}:
        from stages.edit.annotations.estimated import DepthEstimator, draw_depth, draw_normals

        depth = DepthEstimator(config.depth, "edit.depth.model")
        annotations |= {"depth": partial(draw_depth, depth), "normal": partial(draw_normals, depth)}
    if config.pose is not None and "pose" in methods:
        from stages.edit.annotations.estimated import PoseEstimator, draw_pose

        annotations["pose"] = partial(draw_pose, PoseEstimator(config.pose, "edit.pose.model"))
    return annotations


def annotation_problems(config: EditConfig, tasks: Tasks) -> Iterator[str]:
    """Problems with the models of the annotations, read from the models' files."""
    yield from _missing(config, tasks)
    methods = {task.method for task in tasks.values()}
    if config.depth is not None and methods & {"depth", "normal"}:
        check = of_transformers("a depth model", ("ForDepthEstimation",), check_preprocessor)
        yield from problems_of("edit.depth", config.depth, check)
    if config.pose is not None and "pose" in methods:
        check = of_transformers("a VitPose model", ("VitPose",), check_preprocessor)
        yield from problems_of("edit.pose", config.pose, check)


def _missing(config: EditConfig, tasks: Tasks) -> Iterator[str]:
    """Tasks that need a model which the manifest does not name."""
    keys = {"depth": "depth", "normal": "depth", "pose": "pose"}
    for name, task in tasks.items():
        key = keys.get(task.method)
        if key is not None and getattr(config, key) is None:
            yield (
                f"the task {name} needs a model: set edit.{key}.model, or take the task out of tasks.mixture"
            )
