import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry

from stages.models.segmenter import SegmenterWeights, load_segmenter
from stages.models.segmenter.architecture import Architecture, build
from tests.stages.tiny_models import save_segmenter


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenter")
    save_segmenter(folder)
    return load_segmenter(SegmenterWeights(model=str(folder)))


def pictures(count, height=64, width=64):
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


BOXES = np.float32([[8, 8, 40, 40], [20, 10, 60, 50]])


def test_masks_are_those_of_sam_s_own_predictor(segmenter):
    """Encoding in batches and prompting with several boxes changes nothing."""
    images = pictures(3)
    found = segmenter.segment(images, [BOXES, BOXES[:1], BOXES[1:]], batch=2)
    predictor = SamPredictor(segmenter.model)
    for image, boxes, masks in zip(images, [BOXES, BOXES[:1], BOXES[1:]], found, strict=True):
        predictor.set_image(image)
        for box, mask in zip(boxes, masks, strict=True):
            expected, _, _ = predictor.predict(box=box, multimask_output=False)
            assert (mask != expected[0]).mean() < 0.002


def test_one_mask_a_box_at_the_picture_s_size(segmenter):
    found = segmenter.segment(
        pictures(3, 100, 150), [BOXES, np.zeros((0, 4), np.float32), BOXES[:1]], batch=4
    )
    assert [mask.shape for mask in found] == [(2, 100, 150), (0, 100, 150), (1, 100, 150)]
    assert all(mask.dtype == bool for mask in found)


def test_a_row_does_not_depend_on_its_neighbours(segmenter):
    images = pictures(3)
    together = segmenter.segment(images, [BOXES] * 3, batch=3)
    for i in range(3):
        [alone] = segmenter.segment(images[i : i + 1], [BOXES], batch=3)
        np.testing.assert_array_equal(alone, together[i])


def test_no_box_at_all_needs_no_forward(segmenter):
    [masks] = segmenter.segment(pictures(1), [np.zeros((0, 4), np.float32)], batch=4)
    assert masks.shape == (0, 64, 64)


def test_missing_weights_name_the_manifest_key(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mask\.segmenter\.model.*config\.json"):
        load_segmenter(SegmenterWeights(model=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("vit_b", {}),
        (
            "vit_l",
            {"embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)},
        ),
    ],
)
def test_published_sizes_have_the_published_parameters(name, encoder):
    with torch.device("meta"):
        ours = build(Architecture.model_validate({"encoder": encoder})).state_dict()
        theirs = sam_model_registry[name]().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
