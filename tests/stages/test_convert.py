"""Published checkpoints, as their projects save them, become folders that the loaders read."""

import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipeline.cli import app
from stages.models import convert
from stages.models.convert import CheckpointError, convert_grounding, convert_segmenter, read_checkpoint
from stages.models.grounding import GroundingConfig, load_detector
from stages.models.segmenter import SegmenterWeights, load_segmenter
from tests.stages.tiny_models import (
    DETECTOR,
    SEGMENTER,
    save_detector,
    save_segmenter,
    save_text_encoder,
)


@pytest.fixture
def detector_checkpoint(tmp_path):
    """As published: under ``model``, with the prefix of a distributed training and a rest of it."""
    model = save_detector(tmp_path / "written")
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    state["module.label_enc.weight"] = torch.zeros(3)
    torch.save({"model": state}, tmp_path / "published.pth")
    return model, tmp_path / "published.pth"


def test_a_detector_finds_the_same_after_conversion(tmp_path, detector_checkpoint):
    _, path = detector_checkpoint
    text = save_text_encoder(tmp_path / "bert")
    left = convert_grounding(path, text, tmp_path / "made", DETECTOR)
    assert left == ["label_enc.weight"]
    image = [np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)]
    found = [
        load_detector(GroundingConfig(model=str(tmp_path / name))).find(image, ["a red car"], 1)[0]
        for name in ("written", "made")
    ]
    assert found[0].best_score == found[1].best_score
    np.testing.assert_array_equal(found[0].best_box, found[1].best_box)


def test_a_segmenter_comes_back_as_it_was(tmp_path):
    model = save_segmenter(tmp_path / "written")
    torch.save(model.state_dict(), tmp_path / "sam.pth")
    assert convert_segmenter(tmp_path / "sam.pth", tmp_path / "made", SEGMENTER) == []
    loaded = load_segmenter(SegmenterWeights(model=str(tmp_path / "made"))).model
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    torch.save({"model": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(CheckpointError, match="read safely") as raised:
        read_checkpoint(tmp_path / "harmful.pth")
    assert "weights_only" not in str(raised.value), "torch recommends to read it unsafely"


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_checkpoint_is_told(tmp_path, legacy):
    file, rng = tmp_path / "damaged.pth", random.Random(0)
    torch.save({"a": torch.zeros(3)}, file, _use_new_zipfile_serialization=not legacy)
    whole = file.read_bytes()
    for _ in range(300):
        at = rng.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([rng.randrange(256)]) + whole[at + rng.choice([1, 1, 99]) :])
        with suppress(CheckpointError):
            read_checkpoint(file)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_file_that_is_none_is_named(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        read_checkpoint(tmp_path / "bad.pth")


def test_a_missing_tensor_and_another_architecture_are_errors(tmp_path):
    state = save_segmenter(tmp_path / "written").state_dict()
    name = next(iter(state))
    torch.save({k: v for k, v in state.items() if k != name}, tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match=f"lacks 1 tensors, such as {name}"):
        convert_segmenter(tmp_path / "short.pth", tmp_path / "made", SEGMENTER)
    torch.save({**state, name: torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="another architecture"):
        convert_segmenter(tmp_path / "other.pth", tmp_path / "made", SEGMENTER)
    assert not (tmp_path / "made").exists()


def test_the_command_says_what_it_wrote_and_what_is_wrong(tmp_path, monkeypatch):
    torch.save(save_segmenter(tmp_path / "written").state_dict(), tmp_path / "sam.pth")
    monkeypatch.setitem(convert.SEGMENTERS, "sam-vit-b", SEGMENTER)
    arguments = [str(tmp_path / "sam.pth"), str(tmp_path / "made")]
    done = CliRunner().invoke(app, ["convert", "sam-vit-b", *arguments])
    assert done.exit_code == 0
    assert (tmp_path / "made" / "model.safetensors").exists()
    for model, message in (("sam-vit-x", "the models are"), ("groundingdino-swin-t", "--text-encoder")):
        told = CliRunner().invoke(app, ["convert", model, *arguments])
        assert told.exit_code == 2
        assert message in told.output
