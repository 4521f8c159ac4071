"""A row's place in a batch changes no bit of a model's output. (A row that is made again comes first.)"""

import numpy as np
import pytest
import torch

from pipeline.engine.threads import limit_threads, thread_variables
from stages.models.chat.sampling import Sampling, draw, gumbel
from stages.models.classifier import SequenceClassifier
from stages.models.clip import Clip
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.model import Diffusion
from stages.models.grounding import GroundingConfig, load_detector
from stages.models.segmenter import SegmenterWeights, load_segmenter
from stages.models.weights import Weights
from toybox.world.render import render
from toybox.world.scene import sample_scene

BATCHES = [1, 2, 3, 5, 6, 7]
"""The last elements of such batches fill no register of a CPU. (Those of 4 and 8 do.)"""


@pytest.fixture(scope="module")
def scene():
    return render(sample_scene(np.random.default_rng(3), things=2))


def detections(scene):
    detector = load_detector(
        GroundingConfig(model="toybox/weights/detector", box_threshold=0, text_threshold=0)
    )
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for picture in (scene.image, noise):
        for batch in BATCHES:
            found = detector.find([picture] * 7, ["a red ball"] * 7, batch)
            yield batch, [np.concatenate([one.all_boxes.ravel(), one.all_scores]) for one in found]


def masks(scene):
    model = load_segmenter(SegmenterWeights(model="toybox/weights/segmenter")).model
    picture = torch.from_numpy(scene.image).permute(2, 0, 1).float()
    for batch in BATCHES:
        with torch.inference_mode():
            yield batch, model.image_encoder(torch.stack([model.preprocess(picture)] * batch)).numpy()


def pictures_of_clip(scene):
    clip = Clip.load(Weights(model="toybox/weights/clip"))
    for batch in BATCHES:
        yield batch, clip.encode_images([scene.image] * 7, batch)


def texts_of_clip(_scene):
    clip = Clip.load(Weights(model="toybox/weights/clip"))
    for batch in BATCHES:
        yield batch, clip.encode_texts(["a red ball on the grass"] * 7, batch)


def predicted_tasks(_scene):
    classifier = SequenceClassifier(Weights(model="toybox/weights/task_predictor"), 32)
    for batch in BATCHES:
        predicted = classifier.predict(["turn the ball blue"] * 7, batch)
        yield batch, [np.array(list(one.values())) for one in predicted]


def drawn_pictures(_scene):
    model = Diffusion(DiffusionConfig(model="toybox/weights/diffusion", steps=2, guidance_scale=3))
    for batch in BATCHES:
        latents = model.sample(
            model.initial_latents([5] * batch),
            model.prompts.encode(["a red ball on the grass"] * batch),
            torch.full((batch,), 3.0),
            [5] * batch,
        )
        yield batch, np.concatenate([latents.flatten(1).numpy(), _flat(model.decode(latents)[0])], 1)


def _flat(pictures):
    return pictures.reshape(len(pictures), -1)


@pytest.mark.parametrize(
    "model", [detections, masks, pictures_of_clip, texts_of_clip, predicted_tasks, drawn_pictures]
)
def test_every_place_of_every_batch_gives_the_same_bits(model, scene):
    for batch, rows in model(scene):
        for place, row in enumerate(rows):
            assert np.array_equal(row, rows[0]), f"place {place} of batches of {batch}"


def test_the_rows_of_a_batch_are_drawn_as_each_row_alone():
    words = 1037  # the last 13 fill no register
    logits = torch.zeros(3, words)
    generators = [torch.Generator().manual_seed(row) for row in range(3)]
    noise = torch.stack([gumbel(words, torch.Generator().manual_seed(row)) for row in range(3)])
    drawn = draw(logits, generators, Sampling(temperature=1, top_p=1, max_new_tokens=1))
    assert torch.equal(drawn, noise.argmax(1))


@pytest.mark.parametrize("threads", [1, 2, 3, 6])
def test_threads_cut_no_row_in_the_middle_of_a_register(threads, monkeypatch):
    for name in thread_variables(threads):
        monkeypatch.setenv(name, "")  # so that they are restored
    before = torch.get_num_threads()
    try:
        limit_threads(threads)
        rows = torch.linspace(-3, 3, 320 * 64 * 64).repeat(8, 1).sigmoid()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(row, rows[0]) for row in rows)
