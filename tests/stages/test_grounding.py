import dataclasses

import numpy as np
import pytest
import torch
from groundingdino.models.GroundingDINO.utils import gen_sineembed_for_position, get_sine_pos_embed
from groundingdino.util.slconfig import SLConfig

from stages.models.grounding import GroundingConfig, load_detector
from stages.models.grounding import architecture as grounding
from stages.models.grounding.compat import TextEncoder, fit_sine_embeddings, groundingdino, sine_embedding
from stages.models.grounding.published_detector import PublishedDetector, preprocess
from stages.models.grounding.words import caption_of
from tests.stages.tiny_models import DETECTOR, save_detector, save_text_encoder
from toybox.world.render import render
from toybox.world.scene import sample_scene

EVERYTHING = {"box_threshold": 0.0, "text_threshold": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    save_detector(folder)
    return folder


@pytest.fixture(scope="module")
def detector(folder):
    return load_detector(GroundingConfig(model=str(folder), **EVERYTHING))


def pictures(count, height=64, width=64):
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def test_weights_come_back_as_they_were_written(folder, detector, tmp_path):
    written = save_detector(tmp_path)
    for name, value in written.state_dict().items():
        torch.testing.assert_close(detector.model.state_dict()[name], value, rtol=0, atol=0)


def test_finds_boxes_in_pixels_best_first(detector):
    found = detector.find(pictures(3, 48, 72), ["a red car", "the car", "Striped car?"], batch=2)
    assert len(found) == 3
    for detections in found:
        x0, y0, x1, y1 = detections.boxes.T
        assert detections.boxes.dtype == np.float32
        assert (x0 >= 0).all()
        assert (y0 >= 0).all()
        assert (x1 <= 72).all()
        assert (y1 <= 48).all()
        assert (x1 > x0).all()
        assert (np.diff(detections.scores) <= 0).all()
        assert detections.scores[0] == pytest.approx(detections.best_score)


def test_a_row_does_not_depend_on_its_neighbours(detector):
    images, phrases = pictures(4), ["a red car", "car", "the striped blue car", "a car"]
    together = detector.find(images, phrases, batch=4)
    for i in range(4):
        [alone] = detector.find(images[i : i + 1], phrases[i : i + 1], batch=4)
        np.testing.assert_allclose(alone.boxes, together[i].boxes, atol=1e-3)
        np.testing.assert_allclose(alone.scores, together[i].scores, atol=1e-5)


def test_no_row_of_a_batch_is_read_with_another_row_s_mask():
    """The package mixes up the rows' text masks in a batch; trained weights show it, random ones hardly."""
    config = GroundingConfig(model="toybox/weights/detector", box_threshold=0.0, text_threshold=0.0)
    detector = load_detector(config)
    rng = np.random.default_rng(0)
    images = [render(sample_scene(rng, things=2)).image for _ in range(8)]
    phrases = ["ball", "a striped green boat", "the house", "tree", "the dotted yellow star", "a red car"]
    phrases += ["mushroom", "an orange ball"]
    together = detector.predict(images, phrases)
    for row, (image, phrase) in enumerate(zip(images, phrases, strict=True)):
        alone = detector.predict([image] * 8, [phrase] * 8)
        for first, second in zip(together, alone, strict=True):
            assert torch.equal(first[row], second[row]), phrase


def test_the_phrase_changes_the_scores(detector):
    image = pictures(1)
    [red], [blue] = (detector.find(image, [phrase], 1) for phrase in ("a red car", "a blue car"))
    assert abs(red.best_score - blue.best_score) > 1e-6


def test_a_score_is_the_mean_over_the_words_of_the_phrase_alone(detector):
    image = pictures(1)
    boxes, scores, words = detector.predict(image, ["a red car"])
    assert words[0].tolist() == [False, True, True, True, *[False] * 8]
    expected = scores[0, :, 1:4].mean(1).max().item()
    assert detector.find(image, ["a red car"], 1)[0].best_score == pytest.approx(expected, abs=1e-6)
    assert boxes.shape == (1, DETECTOR.num_queries, 4)


@pytest.mark.parametrize("threshold", ["box_threshold", "text_threshold"])
def test_each_threshold_rejects_but_the_nearest_miss_is_known(detector, threshold):
    config = GroundingConfig(model="", **{**EVERYTHING, threshold: 1.0})
    strict = PublishedDetector(detector.model, DETECTOR.image, config)
    [found] = strict.find(pictures(1), ["a red car"], 1)
    [all_found] = detector.find(pictures(1), ["a red car"], 1)
    assert found.boxes.shape == (0, 4)
    assert found.best_score == pytest.approx(all_found.best_score)
    np.testing.assert_allclose(found.best_box, all_found.best_box, atol=1e-4)


@pytest.mark.parametrize("phrase", ["", " . ", "?"])
def test_nothing_is_found_for_a_phrase_without_words(detector, phrase):
    [found] = detector.find(pictures(1), [phrase], 1)
    assert len(found.boxes) == len(found.scores) == 0
    assert found.best_score == 0


def test_long_and_unknown_phrases_are_cut_not_fatal(detector):
    [found] = detector.find(pictures(1), ["zebra " * 500], 1)
    assert np.isfinite(found.best_score)


def test_captions_are_one_lower_case_sub_sentence():
    assert caption_of("A striped. Red  car?") == "a striped red car ."


def test_pictures_keep_their_aspect_within_the_longest_side():
    images = pictures(1, 50, 200)
    tensor = preprocess(
        images, grounding.ImageInput(shortest_side=100, longest_side=300), torch.device("cpu")
    )
    assert tensor.tensors.shape == (1, 3, 75, 300)


def test_missing_weights_name_the_manifest_key(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"grounding\.model.*config\.json"):
        load_detector(GroundingConfig(model=str(tmp_path)))


def test_prints_nothing(detector, folder, capfd):
    load_detector(GroundingConfig(model=str(folder))).find(pictures(1), ["car"], 1)
    assert capfd.readouterr().out == ""


def test_parameters_have_the_names_of_published_checkpoints(detector):
    names = set(detector.model.state_dict())
    assert {
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.encoder.layer.0.attention.output.LayerNorm.weight",
        "bert.encoder.layer.0.intermediate.dense.weight",
        "bert.pooler.dense.weight",
        "feat_map.weight",
        "input_proj.0.0.weight",
        "backbone.0.patch_embed.proj.weight",
        "backbone.0.layers.0.blocks.0.attn.relative_position_bias_table",
        "transformer.encoder.fusion_layers.0.gamma_v",
        "transformer.encoder.text_layers.0.self_attn.in_proj_weight",
        "transformer.decoder.layers.0.ca_text.in_proj_weight",
        "transformer.enc_out_bbox_embed.layers.0.weight",
        "bbox_embed.0.layers.0.weight",
    } <= names


def test_defaults_are_the_published_swin_t():
    """The package's configuration, and a backbone with the parameters of its own."""
    architecture = grounding.Architecture()
    args = SLConfig.fromfile(
        groundingdino.__file__.split("/models/")[0] + "/config/GroundingDINO_SwinT_OGC.py"
    )
    for key, value in architecture.model_dump(exclude={"backbone", "image", "text_length"}).items():
        assert getattr(args, key) == value, key
    ours = grounding.SwinTransformer(**architecture.backbone.model_dump())
    theirs = groundingdino.build_backbone(args)[0]
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == shapes


def test_text_encoder_masks_tokens_from_each_other(folder):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    encoder = TextEncoder(BertModel(BertConfig.from_pretrained(folder / "text_encoder"))).eval()
    ids = torch.tensor([[2, 7, 9, 3]])
    other = torch.tensor([[2, 7, 10, 3]])
    apart = torch.eye(4, dtype=torch.bool)[None]
    zeros, positions = torch.zeros_like(ids), torch.arange(4)[None]
    with torch.no_grad():
        seen = [
            encoder(ids, zeros, positions, mask)["last_hidden_state"]
            - encoder(other, zeros, positions, mask)["last_hidden_state"]
            for mask in (apart, torch.ones_like(apart))
        ]
    assert seen[0][0, 1].abs().max() < 1e-6
    assert seen[1][0, 1].abs().max() > 1e-4


def test_nothing_stays_patched_in_the_package(tmp_path):
    before = (groundingdino.BertModelWarper, groundingdino.get_tokenlizer)
    grounding.build(DETECTOR, save_text_encoder(tmp_path))
    assert (groundingdino.BertModelWarper, groundingdino.get_tokenlizer) == before


def test_sine_embeddings_are_the_package_s_own_at_256():
    positions = torch.arange(7)[None].float()
    theirs = get_sine_pos_embed(positions[..., None], num_pos_feats=256, exchange_xy=False)
    torch.testing.assert_close(sine_embedding(positions, 256), theirs)


@pytest.mark.parametrize("width", [32, 64, 256])
def test_query_embeddings_fit_any_width(width, tmp_path):
    sizes = {**DETECTOR.model_dump(), "hidden_dim": width}
    model = grounding.build(grounding.Architecture.model_validate(sizes), save_text_encoder(tmp_path))
    seen = []
    model.transformer.decoder.ref_point_head.layers[0].register_forward_pre_hook(
        lambda _module, args: seen.append(args[0])
    )
    boxes = torch.rand(5, 2, 4)
    model.transformer.decoder.ref_point_head(gen_sineembed_for_position(boxes))
    half = width // 2
    parts = [sine_embedding(boxes[..., k], half) for k in (1, 0, 2, 3)]
    torch.testing.assert_close(seen[0], torch.cat(parts, -1))


def test_a_width_that_does_not_divide_256_is_refused(folder):
    model = dataclasses.make_dataclass("Model", ["transformer"])(
        dataclasses.make_dataclass("Transformer", ["d_model"])(96)
    )
    with pytest.raises(ValueError, match="hidden_dim"):
        fit_sine_embeddings(model)
