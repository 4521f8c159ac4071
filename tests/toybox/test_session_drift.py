import numpy as np
import pytest

from stages.pictures.png import encode_png
from toybox.studies.session_drift import drift_by_turn, outside

SIDE = 64


def picture(level: int, corner: int | None = None) -> dict:
    image = np.full((SIDE, SIDE, 3), 100, np.uint8)
    image[8:16, 8:16] = level
    if corner is not None:
        image[60:, 60:] = corner
    return {"bytes": encode_png(image)}


def mask(y0: int, x0: int) -> dict:
    edited = np.zeros((SIDE, SIDE), np.uint8)
    edited[y0 : y0 + 8, x0 : x0 + 8] = 128
    return {"bytes": encode_png(edited)}


def row(session: str, turn: int, before: dict, after: dict, edited: dict) -> dict:
    return {"session": session, "turn": turn, "I": before, "Tar": after, "mask": edited}


def test_what_no_turn_could_edit_is_compared_with_the_first_picture():
    first, second, third = picture(100), picture(200), picture(200, corner=151)
    edits = [
        row("a", 2, second, third, mask(30, 30)),  # drifts in a corner, far from both masks
        row("a", 1, first, second, mask(8, 8)),
        row("b", 1, first, second, {"bytes": encode_png(np.full((SIDE, SIDE), 255, np.uint8))}),
    ]
    found = drift_by_turn(edits)
    assert found[1] == [(0.0, 1.0)], "a session without an outside does not count"
    [(drift, unchanged)] = found[2]
    untouched = outside(np.zeros((SIDE, SIDE), np.uint8))
    for y, x in ((8, 8), (30, 30)):
        edited = np.zeros((SIDE, SIDE), np.uint8)
        edited[y : y + 8, x : x + 8] = 128
        untouched &= outside(edited)
    assert unchanged == pytest.approx(1 - 16 / untouched.sum())
    assert drift == pytest.approx(16 * 51 / 255 / untouched.sum())
