"""A VitPose model of transformers: COCO's 17 keypoints of each person."""

import numpy as np
import torch
from transformers import AutoImageProcessor, VitPoseForPoseEstimation

from stages.base import Weights
from stages.finite import NotFiniteError
from stages.models.device import default_device
from stages.models.weights import load_model, load_processor


class PoseEstimator:
    """A pose model; errors name its manifest key."""

    def __init__(self, weights: Weights, key: str) -> None:
        self.device, self.stage = default_device(), key.split(".")[0]
        self.processor = load_processor(AutoImageProcessor, weights, key)
        self.model = load_model(VitPoseForPoseEstimation, weights, key)
        self.model.to(self.device).eval()

    @torch.no_grad()
    def joints(self, image: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """The joints [17,3] (x, y in pixels, score) of the person in each box.

        Args:
            image: uint8 [H,W,3].
            boxes: [n,4]: x0, y0, x1, y1 in pixels.

        Raises:
            NotFiniteError: a joint is not finite.
        """
        sized = [[[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in boxes.tolist()]]
        inputs = self.processor(images=image, boxes=sized, return_tensors="pt").to(self.device)
        (people,) = self.processor.post_process_pose_estimation(self.model(**inputs), boxes=sized)
        joints = [
            np.column_stack([person["keypoints"].cpu().numpy(), person["scores"].cpu().numpy()])
            for person in people
        ]
        if not all(np.isfinite(person).all() for person in joints):
            raise NotFiniteError(self.stage, "the pose")
        return joints
