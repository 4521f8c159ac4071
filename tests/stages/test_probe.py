"""Probes of CLIP: a real one, fitted on the toybox's, and files that are none."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from stages.base import Weights
from stages.models.clip import Clip
from stages.models.probe import Probe
from toybox.world.render import render
from toybox.world.scene import sample_held_out_scene


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.load(Weights(model="toybox/weights/clip"))


def test_a_probe_fitted_on_clip_tells_night_from_day(clip, tmp_path):
    rng = np.random.default_rng(0)
    scenes = [sample_held_out_scene(rng) for _ in range(240)]
    embeddings = clip.encode_images([render(scene).image for scene in scenes], 32)
    night = np.array([scene.time == "night" for scene in scenes])
    known, unseen = slice(0, 160), slice(160, None)
    columns = np.concatenate([embeddings, np.ones((len(scenes), 1))], 1)
    ridge = columns[known].T @ columns[known] + 0.1 * np.eye(columns.shape[1])
    solution = np.linalg.solve(ridge, columns[known].T @ (2.0 * night[known] - 1))
    path = tmp_path / "night.safetensors"
    save_file(
        {"weight": solution[None, :-1].astype(np.float32), "bias": solution[-1:].astype(np.float32)}, path
    )
    probe = Probe("score.nsfw", str(path), clip.width)
    scores = np.array([probe.score(embedding) for embedding in embeddings])
    assert ((scores[unseen] > 0) == night[unseen]).mean() > 0.9


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": np.ones(3, np.float32), "bias": np.zeros(1, np.float32)}, "embeddings of 3 numbers"),
        ({"weight": np.ones(8, np.float32)}, "must hold 'weight' and one 'bias'"),
        ({"weight": np.ones(8, np.float32), "bias": np.zeros(2, np.float32)}, "must hold"),
    ],
)
def test_what_is_no_probe_is_refused(tensors, message, tmp_path):
    path = tmp_path / "probe.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match=rf"score\.nsfw\.model: .*{message}"):
        Probe("score.nsfw", str(path), 8)


def test_a_file_that_is_missing_or_not_safetensors_is_refused(tmp_path):
    (tmp_path / "probe.safetensors").write_bytes(b"pickle")
    for name in ("probe.safetensors", "nothing.safetensors"):
        with pytest.raises(ValueError, match=r"score\.aesthetic\.model: .*cannot be read"):
            Probe("score.aesthetic", str(tmp_path / name), 8)
