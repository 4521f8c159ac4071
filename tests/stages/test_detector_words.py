"""What is no word, or no word that the detector knows, neither counts nor is found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.mask.stage import Mask
from stages.models.grounding import GroundingConfig, load_detector
from stages.models.grounding.words import caption_of
from stages.pictures.png import encode_png
from stages.tasks import Tasks
from tests.stages.test_transformers_detector import pictures, twins  # noqa: F401
from tests.stages.tiny_models import save_detector, save_segmenter
from tests.stages.tiny_tasks import tiny_task

UNKNOWN = ["zebra", "a zebra", "a mauve car", "a red car \U0001f993", "\U0001f993", "\u8eca", "a carpet"]
NOTHING_SAID = [
    "",
    " . ",
    "?!",
    "...",
    "a",
    "the",
    "An",
    "a !",
    "- ' -",
    "[SEP]".replace("SEP", ""),
    "\u2026\u3002",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_detector(folder / "detector")
    save_segmenter(folder / "segmenter")
    return folder


@pytest.fixture(scope="module")
def detector(folder):
    config = GroundingConfig(model=str(folder / "detector"), box_threshold=0, text_threshold=0)
    return load_detector(config)


@pytest.mark.parametrize("phrase", UNKNOWN)
def test_a_phrase_with_an_unknown_word_is_not_found(detector, phrase):
    [found] = detector.find(pictures(1), [phrase], 1)
    assert found.unknown
    assert (len(found.boxes), found.best_score) == (0, 0)


@pytest.mark.parametrize("phrase", NOTHING_SAID)
def test_what_names_nothing_is_not_found(detector, phrase):
    [found] = detector.find(pictures(1), [phrase], 1)
    assert (len(found.boxes), found.best_score) == (0, 0)


def test_both_libraries_agree_on_what_is_unknown(twins):  # noqa: F811
    phrases = [*UNKNOWN, *NOTHING_SAID, "a red car", "red, striped car!"]
    ours, theirs = (detector.find(pictures(1) * len(phrases), phrases, batch=4) for detector in twins)
    assert [found.unknown for found in ours] == [found.unknown for found in theirs]
    assert [len(found.boxes) > 0 for found in ours] == [len(found.boxes) > 0 for found in theirs]


@pytest.mark.parametrize(
    "phrase",
    [
        "a red car!",
        "a red, car",
        "(a red car)",
        '"a red car"',
        "a red car...",
        "A red -- car?",
        "a red c\u200bar",
        "\uff41 red \uff43\uff41r",
        "a&nbsp;red car",
        "a red car\ufe0f",
    ],
)
def test_punctuation_moves_no_score(detector, phrase):
    [plain], [found] = (detector.find(pictures(1), [p], 1) for p in ("a red car", phrase))
    assert found.best_score == plain.best_score
    np.testing.assert_array_equal(found.boxes, plain.boxes)


@settings(max_examples=200)
@given(st.text(max_size=20))
def test_a_caption_has_words_alone_and_one_full_stop(phrase):
    caption = caption_of(phrase)
    assert caption.endswith(".")
    assert caption.count(".") == 1
    assert caption_of(caption) == caption


def test_hyphens_and_apostrophes_stay_within_words():
    assert caption_of("A T-shirt, the boat\u2019s mast - 'big'") == "a t-shirt the boat's mast big ."


def test_the_mask_stage_says_which_rows_it_does_not_understand(folder):
    section = {
        "grounding": {"model": str(folder / "detector"), "box_threshold": 0, "text_threshold": 0},
        "segmenter": {"model": str(folder / "segmenter")},
        "min_area": 0,
        "max_area": 1,
    }
    stage = Mask(Mask.Config.model_validate(section), Tasks({"local": tiny_task()}))
    import pyarrow as pa

    image = encode_png(pictures(1)[0])
    phrases = ["a red car", "a zebra", "the"]
    rows = {"id": list("abc"), "task": ["local"] * 3, "original_object": phrases, "edited_object": phrases}
    written = stage(pa.table({**rows, "source_image": [image] * 3}))
    assert written["reason"].to_pylist() == ["", "unknown_word", "not_grounded"]
