"""The judge on renders, whose truth is known: it has to be far better than what it judges."""

import numpy as np
import pytest
import torch

from toybox.evaluation.judge import FILE, Judge, JudgeNetwork, Logits, _read
from toybox.evaluation.train_judge import NOTHING, labels_of, loss_of_batch, moved
from toybox.world.reading import content_of
from toybox.world.render import render
from toybox.world.scene import COLORS, KINDS, TEXTURE_NAMES, box_of, sample_held_out_scene, without

TRAINED = pytest.mark.skipif(not FILE.exists(), reason="trained by `make toybox`")


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(40)
    return [sample_held_out_scene(rng) for _ in range(64)]


@TRAINED
def test_it_reads_renders_of_held_out_scenes(scenes):
    seen = Judge.load().look([render(scene).image for scene in scenes])
    pairs = [(look.content, content_of(scene)) for look, scene in zip(seen, scenes, strict=True)]
    assert np.mean([a == b for a, b in pairs]) >= 0.95


@TRAINED
def test_it_sees_what_was_taken_away_and_where_the_rest_stands(scenes):
    two = [scene for scene in scenes if len(scene.things) == 2]
    left_out = [without(scene, 0) for scene in two]
    seen = Judge.load().look([render(scene).image for scene in left_out])
    assert np.mean([s.content == content_of(scene) for s, scene in zip(seen, left_out, strict=True)]) >= 0.9
    for look, scene in zip(seen, left_out, strict=True):
        if len(look.things) == 1:
            true = box_of(render(scene).masks[0])
            assert np.abs(np.subtract(look.things[0].box, true)).max() <= 6


@TRAINED
def test_a_changed_color_is_noticed(scenes):
    images = [render(scene).image for scene in scenes if scene.things]
    judge = Judge.load()
    before, after = judge.look(images), judge.look([image[..., ::-1].copy() for image in images])
    changed = [a.content != b.content for a, b in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.9, "red and blue were swapped"


def logits_of(kinds: np.ndarray) -> Logits:
    """Certain answers: the given kind of every pixel, its colour and texture by its number."""
    kind = torch.nn.functional.one_hot(torch.from_numpy(kinds), 1 + len(KINDS)).permute(2, 0, 1)[None]
    number = torch.from_numpy(np.maximum(kinds - 1, 0))
    color, texture = (
        torch.nn.functional.one_hot(number % count, count).permute(2, 0, 1)[None]
        for count in (len(COLORS), len(TEXTURE_NAMES))
    )
    place, time = torch.eye(5)[2][None], torch.eye(2)[1][None]
    return Logits(*(9.0 * x.float() for x in (kind, color, texture, place, time)))


def test_regions_become_objects_from_left_to_right():
    kinds = np.zeros((64, 64), np.int64)
    kinds[10:30, 40:60] = 1
    kinds[20:40, 5:25] = 3
    kinds[0, 0] = 2
    (seen,) = _read(logits_of(kinds))
    assert [thing.look.kind for thing in seen.things] == [KINDS[2], KINDS[0]], "one pixel is no object"
    assert seen.things[0].box == (5, 20, 25, 40)
    assert (seen.background, seen.time) == ("snow", "night")


def test_a_misread_corner_is_no_second_object_but_a_true_half_is():
    kinds = np.zeros((64, 64), np.int64)
    kinds[10:30, 10:50] = 1
    kinds[10:30, 10:14] = 2
    assert len(_read(logits_of(kinds))[0].things) == 1
    kinds[10:30, 10:30] = 2
    assert [thing.look.kind for thing in _read(logits_of(kinds))[0].things] == [KINDS[1], KINDS[0]]


def test_labels_are_the_renderers_truth(scenes):
    scene = next(scene for scene in scenes if len(scene.things) == 2)
    masks = np.round(render(scene).masks * 255).astype(np.uint8)
    labels = labels_of(scene, masks)
    for thing, mask in zip(scene.things, masks, strict=True):
        inside = mask > 127
        assert (labels[0][inside] == 1 + KINDS.index(thing.kind)).all()
        assert (labels[1][inside] == list(COLORS).index(thing.color)).all()
    outside = (masks <= 127).all(0)
    assert (labels[0][outside] == 0).all()
    assert (labels[1:, outside] == NOTHING).all()


def test_pictures_and_labels_move_together():
    image = np.arange(3 * 64 * 64).reshape(3, 64, 64)
    for seed in range(8):
        first, second = moved([image, image[:1] * 2], np.random.default_rng(seed))
        assert (first[:1] * 2 == second).all()
        assert first.shape == image.shape


def test_a_picture_without_objects_has_a_finite_loss():
    labels = torch.full((2, 3, 64, 64), NOTHING)
    labels[:, 0] = 0
    labels[0, :, :9, :9] = 1
    losses = loss_of_batch(JudgeNetwork(), torch.zeros(2, 3, 64, 64), labels, torch.zeros(2, 2).long())
    assert torch.isfinite(losses["loss"])
