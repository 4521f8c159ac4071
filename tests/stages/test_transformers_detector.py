"""transformers' GroundingDINO against groundingdino-py's, on the same weights."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from stages.models.grounding import GroundingConfig, load_detector
from stages.models.grounding.architecture import TEXT_ENCODER
from stages.models.grounding.transformers_detector import TransformersDetector
from tests.stages.detector_weights import in_transformers
from tests.stages.tiny_models import DETECTOR, save_detector

EVERYTHING = {"box_threshold": 0.0, "text_threshold": 0.0}
PHRASES = ["a red car", "the car", "a striped blue car"]


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Both detectors; the second came through a folder of ``save_pretrained``."""
    folder = tmp_path_factory.mktemp("detectors")
    model = save_detector(folder / "py")
    tokenizer = AutoTokenizer.from_pretrained(folder / "py" / TEXT_ENCODER)
    twin, processor = in_transformers(model, DETECTOR, tokenizer)
    twin.save_pretrained(folder / "hf")
    processor.save_pretrained(folder / "hf")
    ours = load_detector(GroundingConfig(model=str(folder / "py"), **EVERYTHING))
    theirs = load_detector(GroundingConfig(model=str(folder / "hf"), library="transformers", **EVERYTHING))
    assert isinstance(theirs, TransformersDetector)
    # Published models share the ids of bert-base-uncased, which transformers has built in.
    special = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", ".", "?"])
    theirs.model.model.special_tokens = torch.tensor(special)
    return ours, theirs


def pictures(count):
    return list(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8))


def test_boxes_and_scores_are_those_of_the_other_library(twins):
    ours, theirs = (detector.predict(pictures(3), PHRASES) for detector in twins)
    torch.testing.assert_close(theirs[0], ours[0], atol=1e-4, rtol=0)
    words = ours[2].shape[1]
    for row in range(3):
        seen = ours[2][row]
        torch.testing.assert_close(
            theirs[1][row][:, :words][:, seen], ours[1][row][:, seen], atol=1e-4, rtol=0
        )


def test_the_words_of_a_phrase_are_the_same(twins):
    ours, theirs = (detector.predict(pictures(3), PHRASES)[2] for detector in twins)
    assert ours.sum(1).tolist() == theirs.sum(1).tolist() == [3, 2, 4]
    assert (theirs[:, : ours.shape[1]] == ours).all()


def test_both_find_the_same_boxes(twins):
    ours, theirs = (detector.find(pictures(3), PHRASES, batch=2) for detector in twins)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other.best_box, one.best_box, atol=0.02)
        assert other.best_score == pytest.approx(one.best_score, abs=1e-4)


def test_the_library_is_told_by_the_model(twins, tmp_path):
    assert GroundingConfig(model="IDEA-Research/grounding-dino-base").library == "transformers"
    assert GroundingConfig(model="IDEA-Research/grounding-dino-base").path is None
    assert GroundingConfig(model="toybox/weights/detector").library == "groundingdino"
    assert GroundingConfig(model=str(tmp_path)).library == "groundingdino"
    assert not GroundingConfig(model="a/b", library="groundingdino").from_hub
