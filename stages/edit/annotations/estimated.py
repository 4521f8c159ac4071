"""Depth, surface normals and poses, as transformers' models estimate them."""

import cv2
import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForDepthEstimation, VitPoseForPoseEstimation

from stages.base import Weights
from stages.edit.annotations.marks import AnnotationError, Row
from stages.finite import NotFiniteError
from stages.models.device import default_device
from stages.models.weights import load_model, load_processor

SURE = 0.3
"""Keypoints of a lower score are not drawn."""
LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
"""Pairs of COCO's 17 keypoints that are joined."""


class DepthEstimator:
    """A relative depth model, such as DPT or Depth Anything, named under a manifest key."""

    def __init__(self, weights: Weights, key: str) -> None:
        self.device, self.stage = default_device(), key.split(".")[0]
        self.processor = load_processor(AutoImageProcessor, weights, key)
        self.model = load_model(AutoModelForDepthEstimation, weights, key)
        self.model.to(self.device).eval()

    @torch.no_grad()
    def nearness(self, image: np.ndarray) -> np.ndarray:
        """Of a picture uint8 [H,W,3]: float32 [H,W] in [0,1], 1 the nearest, 0 the farthest.

        Raises:
            NotFiniteError: the model's depth is not.
        """
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        outputs = self.model(**inputs)
        (found,) = self.processor.post_process_depth_estimation(outputs, target_sizes=[image.shape[:2]])
        depth = found["predicted_depth"].float().cpu().numpy()
        if not np.isfinite(depth).all():
            raise NotFiniteError(self.stage, "the depth map")
        span = float(depth.max() - depth.min())
        return (depth - depth.min()) / (span or 1.0)

    def draw_depth(self, row: Row) -> np.ndarray:
        """The depth map in grey, near is light."""
        grey = np.round(self.nearness(row["source_image"]) * 255).astype(np.uint8)
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)

    def draw_normals(self, row: Row) -> np.ndarray:
        """The surface normals of the depth map: x, y and z in [-1,1] as red, green and blue."""
        return np.round((normals(self.nearness(row["source_image"])) + 1) * 127.5).astype(np.uint8)


def normals(nearness: np.ndarray) -> np.ndarray:
    """Unit normals [H,W,3] of a relief [H,W] in [0,1]: x to the right, y up, z towards the viewer.

    The relief's depth is taken to be a quarter of the picture's shorter side.
    """
    depth = nearness.astype(np.float32) * min(nearness.shape) / 4
    across, down = (cv2.Sobel(depth, cv2.CV_32F, dx, dy, scale=1 / 8) for dx, dy in ((1, 0), (0, 1)))
    vectors = np.stack([-across, down, np.ones_like(depth)], -1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


class PoseEstimator:
    """A VitPose model of COCO's 17 keypoints; people are where the row's boxes are."""

    def __init__(self, weights: Weights, key: str) -> None:
        self.device, self.stage = default_device(), key.split(".")[0]
        self.processor = load_processor(AutoImageProcessor, weights, key)
        self.model = load_model(VitPoseForPoseEstimation, weights, key)
        self.model.to(self.device).eval()

    @torch.no_grad()
    def draw_pose(self, row: Row) -> np.ndarray:
        """Skeletons on black.

        Raises:
            AnnotationError: no_pose: no joint is sure enough.
            NotFiniteError: the model's joints are not.
        """
        image = row["source_image"]
        boxes = [[[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in row["boxes"].tolist()]]
        inputs = self.processor(images=image, boxes=boxes, return_tensors="pt").to(self.device)
        (people,) = self.processor.post_process_pose_estimation(self.model(**inputs), boxes=boxes)
        joints = [
            np.column_stack([person["keypoints"].cpu().numpy(), person["scores"].cpu().numpy()])
            for person in people
        ]
        if not all(np.isfinite(person).all() for person in joints):
            raise NotFiniteError(self.stage, "the pose")
        return draw_skeletons(image.shape[:2], joints)


def draw_skeletons(shape: tuple[int, int], people: list[np.ndarray]) -> np.ndarray:
    """Each person's joints [17,3] (x, y in pixels, score) as a stick figure on black, uint8 [H,W,3].

    Raises:
        AnnotationError: no_pose: no limb has two joints that are sure.
    """
    drawn = np.zeros((*shape, 3), np.uint8)
    thickness = max(1, round(min(shape) / 128))
    for joints in people:
        for limb, (first, second) in enumerate(LIMBS):
            if min(joints[first, 2], joints[second, 2]) < SURE:
                continue
            hue = np.array([[[180 * limb // len(LIMBS), 255, 255]]], np.uint8)
            color = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
            ends = [tuple(int(v) for v in np.round(joints[joint, :2])) for joint in (first, second)]
            cv2.line(drawn, ends[0], ends[1], color, thickness, cv2.LINE_AA)
    if not drawn.any():
        raise AnnotationError("no_pose")
    return drawn
