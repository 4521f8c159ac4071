"""transformers' SAM against segment-anything's on the same weights, and SAM 2."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Sam2Model

from stages.models.segmenter import SegmenterWeights, load_segmenter
from stages.models.segmenter.folder import segmenter_problems
from stages.models.segmenter.published_segmenter import PublishedSegmenter
from stages.models.segmenter.transformers_segmenter import TransformersSegmenter
from tests.stages.segmenter_weights import sam_in_transformers, tiny_sam2
from tests.stages.tiny_models import SEGMENTER, save_segmenter
from toybox.world.render import render
from toybox.world.scene import sample_scene

BOXES = np.float32([[8, 8, 40, 40], [20, 10, 60, 50]])


def pictures(count, height=64, width=64):
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def save_sam(folder: Path):
    twin, processor = sam_in_transformers(save_segmenter(folder / "published"), SEGMENTER)
    twin.save_pretrained(folder / "hf")
    processor.save_pretrained(folder / "hf")
    return folder / "hf"


def save_sam2(folder: Path):
    torch.manual_seed(0)
    config, processor = tiny_sam2()
    Sam2Model(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[save_sam, save_sam2])
def segmenter(request, tmp_path_factory):
    loaded = load_segmenter(SegmenterWeights(model=str(request.param(tmp_path_factory.mktemp("sam")))))
    assert isinstance(loaded, TransformersSegmenter)
    return loaded


def test_masks_are_those_of_the_other_library():
    """On the toybox's trained weights and its pictures, which need no resizing."""
    ours = load_segmenter(SegmenterWeights(model="toybox/weights/segmenter"))
    assert isinstance(ours, PublishedSegmenter)
    from stages.models.segmenter.architecture import Architecture

    sizes = Architecture.model_validate_json(Path("toybox/weights/segmenter/config.json").read_bytes())
    theirs = TransformersSegmenter(*sam_in_transformers(ours.model, sizes))
    rng = np.random.default_rng(0)
    images = [render(sample_scene(rng, things=2)).image for _ in range(6)]
    boxes = [BOXES] * len(images)
    for one, other in zip(*(s.segment(images, boxes, batch=4) for s in (ours, theirs)), strict=True):
        assert 0.02 < one.mean() < 0.9
        assert (one != other).mean() < 1e-3


def test_logits_are_those_of_the_other_library(tmp_path):
    """Also of a picture that is resized and padded: the libraries resize by other functions."""
    theirs = load_segmenter(SegmenterWeights(model=str(save_sam(tmp_path))))
    ours = load_segmenter(SegmenterWeights(model=str(tmp_path / "published")))
    for size, tolerance in (((64, 64), 1e-4), ((100, 150), 2e-2)):
        with torch.inference_mode():
            one, other = (s._decode(s._encode(pictures(1, *size))[0], BOXES, size) for s in (ours, theirs))
        assert one.shape == (2, *size)
        spread = float(one.std())
        torch.testing.assert_close(other, one, atol=tolerance * max(1, spread), rtol=0)


def test_one_mask_a_box_at_the_picture_s_size(segmenter):
    none = np.zeros((0, 4), np.float32)
    found = segmenter.segment(pictures(3, 100, 150), [BOXES, none, BOXES[:1]], batch=4)
    assert [mask.shape for mask in found] == [(2, 100, 150), (0, 100, 150), (1, 100, 150)]
    assert all(mask.dtype == bool for mask in found)


def test_a_row_does_not_depend_on_its_neighbours(segmenter):
    images = pictures(3)
    together = segmenter.segment(images, [BOXES] * 3, batch=3)
    for i in range(3):
        [alone] = segmenter.segment(images[i : i + 1], [BOXES], batch=3)
        np.testing.assert_array_equal(alone, together[i])


def test_a_box_is_meant_in_the_picture_s_pixels(segmenter):
    """A picture twice as large with boxes twice as large is prompted with the same boxes."""
    seen = []
    hook = segmenter.model.prompt_encoder.register_forward_pre_hook(
        lambda _module, _args, keys: seen.append(keys["input_boxes"]), with_kwargs=True
    )
    for factor in (1, 2):
        segmenter.segment(pictures(1, 64 * factor, 64 * factor), [BOXES * factor], 1)
    segmenter.segment(pictures(1, 32, 64), [BOXES / [1, 2, 1, 2]], 1)
    hook.remove()
    torch.testing.assert_close(seen[0], torch.from_numpy(BOXES)[None])
    torch.testing.assert_close(seen[1], seen[0])
    upright = BOXES if segmenter.whole else BOXES / np.float32([1, 2, 1, 2])
    torch.testing.assert_close(seen[2], torch.from_numpy(upright)[None])


def test_a_model_that_is_not_finite_gives_no_mask(segmenter):
    name, parameter = next(iter(segmenter.model.mask_decoder.named_parameters()))
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.fill_(torch.nan)
    assert segmenter.segment(pictures(1), [BOXES], 1) == [None], name
    with torch.no_grad():
        parameter.copy_(kept)


def test_the_library_is_told_by_the_model(tmp_path):
    save_segmenter(tmp_path / "published")
    assert SegmenterWeights(model="facebook/sam-vit-huge").library == "transformers"
    assert SegmenterWeights(model="facebook/sam-vit-huge").path is None
    assert SegmenterWeights(model=str(tmp_path / "published")).library == "segment-anything"
    assert SegmenterWeights(model=str(save_sam2(tmp_path / "hf"))).library == "transformers"


def test_published_weights_of_sam_2_are_those_of_a_video_model(tmp_path):
    """Their config names it; its further tensors are not needed."""
    config = save_sam2(tmp_path) / "config.json"
    content = json.loads(config.read_text())
    content |= {"model_type": "sam2_video", "architectures": ["Sam2VideoModel"]}
    config.write_text(json.dumps(content))
    weights = SegmenterWeights(model=str(tmp_path))
    assert list(segmenter_problems(weights)) == []
    [masks] = load_segmenter(weights).segment(pictures(1), [BOXES], 1)
    assert masks.shape == (2, 64, 64)


def test_another_model_is_refused_by_name(tmp_path):
    config = save_sam2(tmp_path) / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"model_type": "bert", "architectures": ["BertModel"]}))
    weights = SegmenterWeights(model=str(tmp_path))
    [problem] = segmenter_problems(weights)
    assert "mask.segmenter" in problem
    assert "not a SAM" in problem
    with pytest.raises(ValueError, match=r"mask\.segmenter\.model.*bert"):
        load_segmenter(weights)
