import numpy as np
import pyarrow as pa
import pytest

from stages.edit.stage import Edit
from stages.pictures.pixel_threshold import keep_unchanged
from stages.pictures.png import decode_rgb, encode_png
from stages.tasks import Tasks
from tests.stages.test_finite import plan
from tests.stages.tiny_pipelines import save_stable_diffusion
from tests.stages.tiny_tasks import tiny_task

SIDE = 16


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The candidates of one row, with a threshold that keeps about half of the pixels, by mode."""
    folder = tmp_path_factory.mktemp("diffusion")
    save_stable_diffusion(folder)
    ones = encode_png(np.full((SIDE, SIDE), 255, np.uint8))
    masks = {name: [ones] for name in ("precise_mask", "smooth_mask", "soft_mask")}
    picture = encode_png(np.zeros((SIDE, SIDE, 3), np.uint8))
    columns = {**plan(1), **masks, "source_image": [picture], "boxes": [[[0.0, 0, SIDE, SIDE]]]}
    two = [{"cross_until": 0.5}, {"cross_until": 0.2, "self_until": 0.2}]
    tasks = Tasks({"local": tiny_task(candidates=two)})

    def draw(**threshold):
        config = {"diffusion": {"model": str(folder), "steps": 5, "guidance_scale": 1.0}, "batch": 1}
        config |= {"pixel_threshold": threshold} if threshold else {}
        [row] = Edit(Edit.Config.model_validate(config), tasks)(pa.table(columns)).to_pylist()
        return row

    settings = {"alpha": 0.002, "kernel": 0.2}
    return {
        "none": draw(),
        "candidate": draw(**settings),
        "always": draw(**settings, mode="always"),
    }


def test_in_the_mode_candidate_each_drawing_is_followed_by_its_thresholded_version(drawn):
    candidates = drawn["candidate"]["candidates"]
    assert [c["thresholded"] for c in candidates] == [False, True] * 2
    assert [c["candidate"] for c in candidates] == [0, 0, 1, 1]
    assert [c["image"] for c in candidates[::2]] == [c["image"] for c in drawn["none"]["candidates"]]
    anchor = decode_rgb(drawn["none"]["anchor"])
    some = False
    for plain, restored in zip(candidates[::2], candidates[1::2], strict=True):
        before, after = anchor / 255, decode_rgb(plain["image"]) / 255
        expected = np.round(255 * keep_unchanged(before, after, 0.002, 3)).astype(np.uint8)
        assert (decode_rgb(restored["image"]) == expected).all()
        some = some or 0 < (expected == anchor).all(-1).mean() < 1
    assert some, "some pixels are kept and some are not"


def test_in_the_mode_always_the_thresholded_version_is_the_only_one(drawn):
    assert drawn["always"]["candidates"] == drawn["candidate"]["candidates"][1::2]
    assert drawn["always"]["anchor"] == drawn["none"]["anchor"]
