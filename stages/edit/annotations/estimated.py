"""Depth, surface normals and poses, estimated by transformers' models."""

import cv2
import numpy as np

from stages.edit.annotations.marks import Subject
from stages.models.depth import DepthEstimator
from stages.models.pose import PoseEstimator
from stages.written_text import AnnotationError

SURE = 0.3
"""Least score of a keypoint that is drawn."""
LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
"""Pairs of COCO's 17 keypoints that are connected by a line."""


def draw_depth(model: DepthEstimator, subject: Subject) -> np.ndarray:
    """The depth map in grey; near is light."""
    grey = np.round(model.nearness(subject.picture) * 255).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def draw_normals(model: DepthEstimator, subject: Subject) -> np.ndarray:
    """The surface normals of the depth map: x, y and z in [-1,1] as red, green and blue."""
    return np.round((normals(model.nearness(subject.picture)) + 1) * 127.5).astype(np.uint8)


def draw_pose(model: PoseEstimator, subject: Subject) -> np.ndarray:
    """Skeletons on black. The boxes say where people are.

    Raises:
        AnnotationError: no_pose: no joint has a sufficient score.
        NotFiniteError: the model's joints are not finite.
    """
    height, width = subject.picture.shape[:2]
    return draw_skeletons((height, width), model.joints(subject.picture, subject.region.boxes))


def normals(nearness: np.ndarray) -> np.ndarray:
    """Unit normals [H,W,3] of a relief [H,W] in [0,1]: x to the right, y up, z towards the viewer.

    The depth of the relief is assumed to be a quarter of the picture's shorter side.
    """
    depth = nearness.astype(np.float32) * min(nearness.shape) / 4
    across, down = (cv2.Sobel(depth, cv2.CV_32F, dx, dy, scale=1 / 8) for dx, dy in ((1, 0), (0, 1)))
    vectors = np.stack([-across, down, np.ones_like(depth)], -1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def draw_skeletons(shape: tuple[int, int], people: list[np.ndarray]) -> np.ndarray:
    """Draw each person's joints [17,3] (x, y in pixels, score) as a stick figure on black, uint8 [H,W,3].

    Raises:
        AnnotationError: no_pose: no limb has two joints with a sufficient score.
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
