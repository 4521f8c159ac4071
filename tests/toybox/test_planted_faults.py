"""Faults planted in pairs whose every part is known."""

import numpy as np
import pytest

from stages.pictures.png import decode_rgb, encode_png
from tests.stages.tiny_tasks import tiny_task
from toybox.studies.mask_ablation import interval
from toybox.studies.planted_faults import FAULTS, Pair, cells, plant

RNG = np.random.default_rng(0)
SIDE = 64


def pair(task: str, seed: int = 0, **keys) -> Pair:
    """A square that turns from red to blue on a noisy ground."""
    picture = np.random.default_rng(seed).integers(100, 160, (SIDE, SIDE, 3), np.uint8)
    edited = picture.copy()
    picture[20:40, 20:40], edited[20:40, 20:40] = (220, 40, 40), (40, 40, 220)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:40, 20:40] = 255
    row = {
        "id": str(seed),
        "task": task,
        "anchor": encode_png(picture),
        "candidates": [{"image": encode_png(picture)}, {"image": encode_png(edited), "mask": "soft"}],
        "choice": 1,
        "precise_mask": encode_png(mask),
        "boxes": [[20, 20, 40, 40]],
    }
    return Pair(row, tiny_task(task, **keys))


def planted(name: str, first: Pair) -> tuple[np.ndarray, np.ndarray] | None:
    fault = next(fault for label, fault in FAULTS.items() if label.startswith(f"{name}:"))
    assert fault is not None
    row = fault(first, pair("color", seed=1), RNG)
    if row is None:
        return None
    spoiled = Pair({**row, "choice": 0}, first.task)
    return spoiled.input, spoiled.target


def test_every_fault_spoils_the_pair():
    for task in ("color", "remove"):
        whole = pair(task)
        for label, fault in FAULTS.items():
            if fault is None or planted(label[0], whole) is None:
                continue
            i, tar = planted(label[0], whole)
            assert (i != whole.input).any() or (tar != whole.target).any(), label


def test_what_the_faults_are():
    whole = pair("color")
    i, tar = planted("a", whole)
    assert (i == tar).all()
    i, tar = planted("d", whole)
    assert (i == whole.target).all()
    assert (tar == whole.input).all()
    _, tar = planted("c", whole)
    assert (tar[whole.inside] == whole.target[whole.inside]).all()
    assert (tar != whole.target)[whole.outside].any()
    _, tar = planted("f", whole)
    assert (tar[~whole.inside] == whole.target[~whole.inside]).all()
    assert (tar[30, 30] != whole.target[30, 30]).any()
    i, tar = planted("i", whole)
    assert (tar.astype(int) - i == 1).all()


def test_a_reverse_task_s_target_is_its_anchor():
    reverse = pair("add", direction="reverse")
    assert (reverse.target[30, 30] == (220, 40, 40)).all()
    row = reverse.with_pictures(reverse.input, np.zeros_like(reverse.target))
    assert not decode_rgb(row["anchor"]).any()
    assert row["candidates"][0]["change_outside_raw"] == pytest.approx(130 / 255, abs=0.02)


def test_an_interval_holds_the_mean_and_narrows_with_more_values():
    few, many = interval([0, 1] * 10), interval([0, 1] * 1000)
    assert few.startswith("0.500 (")
    low, high = (float(value) for value in many[7:-1].split("-"))
    assert 0.45 < low < 0.5 < high < 0.55
    assert interval([1.0, float("nan")]) == "1.000 (1.000-1.000)"


def test_a_fault_is_planted_once_in_every_pair_to_which_it_applies():
    pairs = [pair("color"), pair("remove", seed=2)]
    labels = {label[0]: fault for label, fault in FAULTS.items() if fault is not None}
    assert [row["task"] for row in plant(labels["g"], pairs, RNG)] == ["remove"]
    assert [row["task"] for row in plant(labels["a"], pairs, RNG)] == ["color", "remove"]
    assert len(plant(None, pairs, RNG)) == 2


def test_a_line_tells_the_rejected_share_the_reasons_and_what_was_missed():
    rows = [{"task": "color"}, {"task": "color"}, {"task": "local"}, {"task": "local"}]
    reasons = ["clip_image_low", "calibrated_low", "calibrated_low", ""]
    assert cells(rows, reasons, True) == "0.750 | calibrated_low 2, clip_image_low 1 (kept: local 1)"
    assert cells(rows, reasons, False) == "0.750 | calibrated_low 2, clip_image_low 1"
    assert cells([], [], True) == "0.000 | "
