"""Depth, normals and poses: transformers' architectures at small size, and the drawing of what they find."""

import numpy as np
import pytest

from stages.base import Weights
from stages.edit.annotations.estimated import (
    LIMBS,
    draw_depth,
    draw_normals,
    draw_pose,
    draw_skeletons,
    normals,
)
from stages.edit.annotations.methods import load_annotations
from stages.edit.config import EditConfig
from stages.models.depth import DepthEstimator
from stages.models.pose import PoseEstimator
from stages.tasks import Tasks
from stages.written_text import AnnotationError
from tests.stages.test_annotate import subject
from tests.stages.tiny_estimators import save_tiny_depth, save_tiny_pose
from tests.stages.tiny_tasks import tiny_task

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory) -> str:
    return save_tiny_depth(tmp_path_factory.mktemp("depth"))


@pytest.fixture(scope="module")
def pose_model(tmp_path_factory) -> str:
    return save_tiny_pose(tmp_path_factory.mktemp("pose"))


def test_depth_is_a_grey_picture_of_the_whole_range(depth_model):
    estimator = DepthEstimator(Weights(model=depth_model), "edit.depth.model")
    nearness = estimator.nearness(IMAGE)
    assert nearness.shape == IMAGE.shape[:2]
    assert (nearness.min(), nearness.max()) == (0, 1)
    drawn = draw_depth(estimator, subject(IMAGE))
    assert drawn.dtype == np.uint8
    assert (drawn == np.round(nearness * 255)[..., None]).all()
    assert draw_normals(estimator, subject(IMAGE)).shape == IMAGE.shape


def test_normals_point_at_the_viewer_where_it_is_flat_and_away_from_what_is_near():
    flat = normals(np.full((16, 16), 0.3, np.float32))
    assert np.allclose(flat, [0, 0, 1])
    rising = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))  # nearer to the right
    assert np.allclose(np.linalg.norm(normals(rising), axis=-1), 1, atol=1e-5)
    assert (normals(rising)[8:-8, 8:-8, 0] < -0.1).all(), "a wall that comes nearer to the right faces left"
    assert (normals(rising.T)[8:-8, 8:-8, 1] > 0.1).all(), "a floor, nearer below, faces up"


def test_poses_are_asked_for_within_the_boxes(pose_model, monkeypatch):
    estimator = PoseEstimator(Weights(model=pose_model), "edit.pose.model")
    monkeypatch.setattr("stages.edit.annotations.estimated.SURE", -np.inf)
    centres = []
    for x0 in (2, 42):
        boxes = np.array([[x0, 4, x0 + 30, 44]], np.float32)
        drawn = draw_pose(estimator, subject(IMAGE, boxes))
        assert drawn.shape == IMAGE.shape
        centres.append(np.where(drawn.any(-1))[1].mean())
    assert 20 < centres[1] - centres[0] < 60, "the people are where the boxes are"


def test_only_sure_joints_are_drawn():
    joints = np.zeros((17, 3), np.float32)
    joints[5], joints[7] = (10, 10, 0.9), (30, 10, 0.9)
    drawn = draw_skeletons((40, 40), [joints])
    assert drawn[10, 10:30].max(-1).min() > 0
    assert drawn[20:].max() == 0
    joints[:, 2] = 0.2
    with pytest.raises(AnnotationError, match="no_pose"):
        draw_skeletons((40, 40), [joints])


def test_every_joint_belongs_to_a_limb():
    assert {joint for limb in LIMBS for joint in limb} == set(range(17))


def test_a_task_whose_model_is_missing_is_named(depth_model):
    config = EditConfig(diffusion={"model": "toybox/weights/diffusion"})
    plain = Tasks({"adjust": tiny_task("adjust", method="adjust", candidates=[])})
    assert set(load_annotations(config, plain)) == {"draw_box", "draw_mask", "draw_text", "adjust", "sketch"}
    for method, key in (("depth", "depth"), ("normal", "depth"), ("pose", "pose")):
        tasks = Tasks({method: tiny_task(method, method=method, candidates=[])})
        with pytest.raises(ValueError, match=f"the task {method} needs a model: set edit.{key}.model"):
            load_annotations(config, tasks)
    with_depth = EditConfig(diffusion={"model": "toybox/weights/diffusion"}, depth={"model": depth_model})
    loaded = load_annotations(
        with_depth, Tasks({"normal": tiny_task("normal", method="normal", candidates=[])})
    )
    assert {"depth", "normal"} <= set(loaded)
