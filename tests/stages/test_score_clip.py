import numpy as np
import open_clip
import pytest
import torch

from stages.base import Weights
from stages.models.clip import Clip, direction, similarity
from tests.stages.tiny_clip import save_tiny_clip
from toybox.world.scene import SIZE


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(clip_folder) -> Clip:
    return Clip.load(Weights(model=str(clip_folder)))


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8))


def test_embeddings_are_normalised_and_those_of_open_clip(clip, clip_folder):
    images, texts = pictures(2), ["a red car", "a blue ball at night"]
    model = open_clip.create_model(f"local-dir:{clip_folder}").eval()
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        expected = model.encode_image((pixels - 0.5) / 0.5, normalize=True).numpy()
        tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")(texts)
        expected_texts = model.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(clip.encode_images(images, 2), expected, atol=1e-5)
    np.testing.assert_allclose(clip.encode_texts(texts, 2), expected_texts, atol=1e-5)


def test_a_picture_s_embedding_does_not_depend_on_its_neighbours(clip):
    images = pictures(5)
    together = clip.encode_images(images, 2)
    alone = np.concatenate([clip.encode_images([image], 2) for image in images])
    np.testing.assert_array_equal(together, alone)


def test_any_size_and_any_text_can_be_encoded(clip):
    large = np.zeros((200, 300, 3), np.uint8)
    assert clip.encode_images([large], 1).shape == (1, 128)
    texts = ["", "猫 🙂", "very long " * 100, "tab\tand\x00null"]
    assert np.isfinite(clip.encode_texts(texts, 3)).all()


def test_a_text_is_compared_by_its_cosine_not_by_a_softmax_over_itself(clip):
    image = clip.encode_images(pictures(1), 1)[0]
    values = [similarity(image, text) for text in clip.encode_texts(["a red car", "a blue ball"], 2)]
    assert values[0] != values[1]
    assert all(abs(value) < 0.999 for value in values)


def test_direction_compares_the_changes():
    car, ball = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    assert direction(car, ball, car, ball) == pytest.approx(1)
    assert direction(car, ball, ball, car) == pytest.approx(-1)
    assert direction(car, ball, car, np.array([1.0, 0, 1])) == pytest.approx(0)


def test_a_picture_that_did_not_change_has_direction_zero():
    car, ball = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    assert direction(car, car, car, ball) == 0


def test_missing_weights_are_an_error_that_names_the_key(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"clip\.model.*open_clip_config\.json"):
        Clip.load(Weights(model=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"clip\.model.*nowhere/clip"):
        Clip.load(Weights(model="nowhere/clip"))
