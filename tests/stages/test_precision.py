"""Detector, segmenter and CLIP in half precision: nearly the same results, in float32."""

import shutil

import numpy as np
import pytest

from stages.models.clip import Clip
from stages.models.config import ClipConfig
from stages.models.grounding import GroundingConfig, load_detector
from stages.models.segmenter import SegmenterWeights, load_segmenter
from tests.stages.test_transformers_segmenter import save_sam, save_sam2
from tests.stages.test_weights import _save_transformers_detector
from tests.stages.tiny_clip import save_tiny_clip
from tests.stages.tiny_models import save_segmenter
from toybox.world.render import render
from toybox.world.scene import sample_scene

BOXES = np.float32([[8, 8, 40, 40], [20, 10, 60, 50]])


def pictures(count):
    return list(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8))


def _toybox(folder):
    shutil.copytree("toybox/weights/detector", folder, dirs_exist_ok=True)


@pytest.mark.parametrize("save", [_toybox, _save_transformers_detector])
def test_a_detector_in_half_precision(tmp_path, save):
    save(tmp_path)
    rng = np.random.default_rng(0)
    images = [render(sample_scene(rng, things=2)).image for _ in range(2)]
    keys = {"model": str(tmp_path), "box_threshold": 0.0, "text_threshold": 0.0}
    found = [
        load_detector(GroundingConfig(**keys, dtype=dtype)).find(images, ["a red car", "the car"], 2)
        for dtype in ("float32", "bfloat16")
    ]
    for one, other in zip(*found, strict=True):
        assert other.boxes.dtype == other.scores.dtype == np.float32
        assert other.best_score == pytest.approx(one.best_score, abs=0.03)
        assert other.best_score != one.best_score, "it computed in another precision"


def _save_published(folder):
    save_segmenter(folder)
    return folder


@pytest.mark.parametrize("save", [_save_published, save_sam, save_sam2])
def test_a_segmenter_in_half_precision(tmp_path, save):
    model = str(save(tmp_path))
    one, other = (
        load_segmenter(SegmenterWeights(model=model, dtype=dtype)).segment(pictures(2), [BOXES] * 2, 2)
        for dtype in ("float32", "bfloat16")
    )
    for mask, half in zip(one, other, strict=True):
        assert half.dtype == bool
        assert (mask != half).mean() < 0.1


def test_clip_in_half_precision(tmp_path):
    save_tiny_clip(tmp_path)
    config = ClipConfig(model=str(tmp_path))
    one, other = (Clip.load(config, dtype=d).encode_images(pictures(2), 2) for d in ("float32", "bfloat16"))
    assert other.dtype == np.float32
    np.testing.assert_allclose(other, one, atol=0.05)
    assert (other != one).any()
