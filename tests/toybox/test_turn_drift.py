import numpy as np

from toybox.studies.turn_drift import PICTURES, chain, drift, sample_edits, untouched
from toybox.world.render import render
from toybox.world.scene import sample_held_out_scene


def test_thresholding_slows_the_drift_of_what_no_edit_touched():
    rng = np.random.default_rng(3)
    first = np.stack([render(sample_held_out_scene(rng)).image for _ in range(PICTURES)])
    edits = sample_edits(rng)
    few, turns = slice(0, 8), edits[:2]
    turns = [turn[few] for turn in turns]
    mask = untouched(edits)[few]
    assert 0.2 < mask.mean() < 0.8
    free, held = (drift(first[few], chain(first[few], turns, kernel), mask) for kernel in (None, 5))
    assert free[1] > free[0] > 0
    assert (held < free).all()
    assert held[1] - held[0] < free[1] - free[0]
