"""Which annotation a task's ``method`` is; those that need a model load it."""

from stages.edit import EditConfig
from stages.edit.adjust import draw_adjusted
from stages.edit.annotate import Annotation, draw_boxes, draw_mask, draw_sketch
from stages.edit.lettering import draw_text
from stages.tasks import Tasks


def load_annotations(config: EditConfig, tasks: Tasks) -> dict[str, Annotation]:
    """The annotations by method, those with a model only where a task of the run has the method.

    Raises:
        ValueError: the manifest names no model for it.
    """
    annotations: dict[str, Annotation] = {
        "draw_box": draw_boxes,
        "draw_mask": draw_mask,
        "draw_text": draw_text,
        "adjust": draw_adjusted,
        "sketch": draw_sketch,
    }
    methods = {task.method: name for name, task in tasks.items()}
    if "depth" in methods or "normal" in methods:
        if config.depth is None:
            raise ValueError(_missing("depth", methods.get("depth", methods.get("normal", ""))))
        from stages.edit.estimators import DepthEstimator

        depth = DepthEstimator(config.depth, "edit.depth.model")
        annotations |= {"depth": depth.draw_depth, "normal": depth.draw_normals}
    if "pose" in methods:
        if config.pose is None:
            raise ValueError(_missing("pose", methods["pose"]))
        from stages.edit.estimators import PoseEstimator

        annotations["pose"] = PoseEstimator(config.pose, "edit.pose.model").draw_pose
    return annotations


def _missing(key: str, task: str) -> str:
    return f"the task {task} needs a model: set edit.{key}.model, or take the task out of tasks.mixture"
