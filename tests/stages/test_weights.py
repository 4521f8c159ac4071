"""Weights are read from safetensors alone, and nothing that lies beside them is run."""

import ast
import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from stages.base import Weights
from stages.models.chat.sampling import Sampling
from stages.models.chat.transformers_chat import load as load_chat
from stages.models.chat.vision_chat import load as load_vision_chat
from stages.models.classifier import SequenceClassifier
from stages.models.clip import Clip
from stages.models.depth import DepthEstimator
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.model import Diffusion
from stages.models.dino import Dino
from stages.models.grounding import GroundingConfig, load_detector
from stages.models.grounding.architecture import TEXT_ENCODER
from stages.models.pose import PoseEstimator
from stages.models.probe import Probe
from stages.models.segmenter import SegmenterWeights, load_segmenter
from stages.models.weights import load_model, load_processor
from tests.stages.detector_weights import in_transformers
from tests.stages.tiny_clip import save_tiny_clip
from tests.stages.tiny_estimators import save_tiny_depth, save_tiny_dino, save_tiny_pose
from tests.stages.tiny_models import DETECTOR, save_detector, save_segmenter
from tests.stages.tiny_pipelines import save_sdxl, save_stable_diffusion
from tests.stages.tiny_vision import llava

ROOT = Path(__file__).parents[2]
TOYBOX = ROOT / "toybox" / "weights"


def _save_transformers_detector(folder: Path) -> None:
    model = save_detector(folder / "py")
    tokenizer = AutoTokenizer.from_pretrained(folder / "py" / TEXT_ENCODER)
    for part in in_transformers(model, DETECTOR, tokenizer):
        part.save_pretrained(folder)
    shutil.rmtree(folder / "py")


VISION = Sampling(temperature=1, top_p=1, max_new_tokens=6)


def _save_vision_chat(folder: Path) -> None:
    for part in llava(*"abcdefghijklmnop"):
        part.save_pretrained(folder)


def _copied(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copytree(TOYBOX / name, folder, dirs_exist_ok=True)


LOADERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Weights], object]]] = {
    "Stable Diffusion": (
        "diffusion.model",
        save_stable_diffusion,
        lambda weights: Diffusion(DiffusionConfig(model=weights.model)),
    ),
    "SDXL": ("diffusion.model", save_sdxl, lambda weights: Diffusion(DiffusionConfig(model=weights.model))),
    "GroundingDINO": (
        "grounding.model",
        save_detector,
        lambda weights: load_detector(GroundingConfig(model=weights.model)),
    ),
    "GroundingDINO of transformers": (
        "grounding.model",
        _save_transformers_detector,
        lambda weights: load_detector(GroundingConfig(model=weights.model, library="transformers")),
    ),
    "SAM": (
        "mask.segmenter.model",
        save_segmenter,
        lambda weights: load_segmenter(SegmenterWeights(model=weights.model, library="segment-anything")),
    ),
    "CLIP": ("clip.model", save_tiny_clip, lambda weights: Clip.load(weights)),
    "DINOv2": ("score.dino.model", save_tiny_dino, lambda weights: Dino(weights, "score.dino.model")),
    "depth": (
        "edit.depth.model",
        save_tiny_depth,
        lambda weights: DepthEstimator(weights, "edit.depth.model"),
    ),
    "pose": ("edit.pose.model", save_tiny_pose, lambda weights: PoseEstimator(weights, "edit.pose.model")),
    "language model": (
        "instruct.model",
        _copied("language_model"),
        lambda weights: load_chat(weights.model, None, "float32"),
    ),
    "vision language model": (
        "judge.model",
        _save_vision_chat,
        lambda weights: load_vision_chat(weights, "float32", VISION, 1, 16, "judge"),
    ),
    "task predictor": (
        "task_check.predictor.model",
        _copied("task_predictor"),
        lambda weights: SequenceClassifier(weights, 32),
    ),
}
"""By model: its manifest key, what writes a folder, and what loads it."""

PICKLED = {
    "model.safetensors": "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors": "diffusion_pytorch_model.bin",
    "open_clip_model.safetensors": "open_clip_pytorch_model.bin",
}
"""What the libraries call the same weights as a pickle."""


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def _arm(file: Path, mark: Path) -> None:
    file.write_bytes(pickle.dumps(Bomb(mark)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a model, written once."""
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name.replace(" ", "-"))
            LOADERS[name][1](folders[name])
        return folders[name]

    return folder_of


def test_the_bomb_goes_off_where_it_is_unpickled(tmp_path):
    _arm(tmp_path / "pytorch_model.bin", tmp_path / "mark")
    pickle.loads((tmp_path / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", LOADERS)
def test_safetensors_load(saved, name):
    LOADERS[name][2](Weights(model=str(saved(name))))


@pytest.mark.parametrize("suffix", ["bin", "pt", "ckpt"])
@pytest.mark.parametrize("name", LOADERS)
def test_a_folder_with_pickles_alone_is_refused_unread(saved, tmp_path, name, suffix):
    key, _, load = LOADERS[name]
    folder = shutil.copytree(saved(name), tmp_path / "model")
    mark = tmp_path / "mark"
    for file in [*folder.rglob("*.safetensors")]:
        _arm(file.with_name(PICKLED[file.name]).with_suffix(f".{suffix}"), mark)
        file.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{key}: .*\.{suffix} is a pickle.*convert it to safetensors"
    ):
        load(Weights(model=str(folder)))
    assert not mark.exists()


@pytest.mark.parametrize("name", LOADERS)
def test_an_index_of_safetensors_that_names_pickles_is_refused(saved, tmp_path, name):
    """Whole pickles without any code: only a refusal to read them raises."""
    key, _, load = LOADERS[name]
    folder = shutil.copytree(saved(name), tmp_path / "model")
    for file in [*folder.rglob("*.safetensors")]:
        tensors = load_file(file)
        torch.save(tensors, file.with_name("weights-00001.bin"))
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "weights-00001.bin")}
        file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))
        file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{key}: .*weights-00001\.bin is a pickle"):
        load(Weights(model=str(folder)))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_one_part_of_a_pipeline_as_a_pickle_is_refused(saved, tmp_path, part):
    folder = shutil.copytree(saved("SDXL"), tmp_path / "model")
    [file] = (folder / part).glob("*.safetensors")
    _arm(file.with_name(PICKLED[file.name]), tmp_path / "mark")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"diffusion\.model: .*{part}.*is a pickle"):
        Diffusion(DiffusionConfig(model=str(folder)))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", LOADERS)
def test_pickles_beside_safetensors_are_not_read(saved, tmp_path, name):
    folder = shutil.copytree(saved(name), tmp_path / "model")
    for file in [*folder.rglob("*.safetensors")]:
        for other in (PICKLED[file.name], "optimizer.pt"):
            _arm(file.with_name(other), tmp_path / "mark")
    LOADERS[name][2](Weights(model=str(folder)))
    assert not (tmp_path / "mark").exists()


def test_a_probe_is_no_pickle(tmp_path):
    _arm(tmp_path / "probe.pt", tmp_path / "mark")
    with pytest.raises(ValueError, match=r"score\.nsfw\.model: .*cannot be read as safetensors"):
        Probe("score.nsfw", str(tmp_path / "probe.pt"), 4)
    assert not (tmp_path / "mark").exists()


def test_a_model_for_which_a_package_is_missing_is_an_error_that_names_the_key(saved, tmp_path):
    folder = shutil.copytree(saved("DINOv2"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(OSError, match=r"score\.dino\.model: .* cannot be loaded: .*optimum"):
        LOADERS["DINOv2"][2](Weights(model=str(folder)))


def test_damaged_safetensors_are_an_error_that_names_the_key(saved, tmp_path):
    for name in ("DINOv2", "SAM", "Stable Diffusion", "CLIP"):
        folder = shutil.copytree(saved(name), tmp_path / name)
        for file in folder.rglob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(OSError, match=LOADERS[name][0]):
            LOADERS[name][2](Weights(model=str(folder)))


def _code(mark: Path) -> str:
    return f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Evil: pass\n"


def test_a_pipelines_own_code_is_not_run(saved, tmp_path):
    for case, (where, change) in enumerate(
        {
            "evil.py": {"_class_name": ["evil", "Evil"]},
            "unet/evil.py": {"unet": ["evil", "Evil"]},
        }.items()
    ):
        folder = shutil.copytree(saved("Stable Diffusion"), tmp_path / str(case))
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | change))
        (folder / where).write_text(_code(tmp_path / "mark"))
        with pytest.raises(OSError, match=r"diffusion\.model"):
            Diffusion(DiffusionConfig(model=str(folder)))
        assert not (tmp_path / "mark").exists()


def test_a_model_s_and_a_tokenizer_s_own_code_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text(_code(tmp_path / "mark"))
    auto = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
    for file in ("config.json", "tokenizer_config.json"):
        (tmp_path / file).write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    weights = Weights(model=str(tmp_path))
    for load in (
        lambda: load_model(AutoModel, weights, "score.dino.model"),
        lambda: load_processor(AutoTokenizer, weights, "score.dino.model"),
    ):
        with pytest.raises(OSError, match=r"score\.dino\.model"):
            load()
    assert not (tmp_path / "mark").exists()


def test_a_clip_folder_cannot_ask_for_its_code_to_be_run(saved, tmp_path):
    folder = shutil.copytree(saved("CLIP"), tmp_path / "model")
    (folder / "evil.py").write_text(_code(tmp_path / "mark"))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with suppress(OSError, ValueError):
        Clip.load(Weights(model=str(folder)))
    assert not (tmp_path / "mark").exists()


def test_a_clip_folder_s_text_model_cannot_ask_for_its_code_to_be_run(saved, tmp_path, monkeypatch):
    """Nor does it ask a person at the terminal."""
    folder = shutil.copytree(saved("CLIP"), tmp_path / "model")
    text = folder / "text"
    text.mkdir()
    (text / "evil.py").write_text(_code(tmp_path / "mark"))
    auto = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    (text / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_model_name": str(text), "hf_model_pretrained": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    asked = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    with pytest.raises(OSError, match=r"clip\.model: .* cannot be loaded"):
        Clip.load(Weights(model=str(folder)))
    assert not asked
    assert not (tmp_path / "mark").exists()


def test_a_tag_of_clip_is_no_file_and_no_pickle(tmp_path, monkeypatch):
    _arm(tmp_path / "weights.pt", tmp_path / "mark")
    with pytest.raises(FileNotFoundError, match=r"clip\.revision: .*no tag of weights of ViT-B-32"):
        Clip.load(Weights(model="ViT-B-32", revision=str(tmp_path / "weights.pt")))
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda _: str(tmp_path / "weights.pt"))
    with pytest.raises(FileNotFoundError, match=r"clip\.revision: .*weights\.pt alone, a pickle"):
        Clip.load(Weights(model="ViT-B-32", revision="openai"))
    assert not (tmp_path / "mark").exists()


LOADING = (
    "from_pretrained",
    "load_file",
    "torch.load",
    "load_model",
    "create_model",
    "get_tokenizer",
    "safe_open",
)
ALLOWED = {
    "weights.py": {
        *("kind.from_pretrained", "fill", "open_clip.create_model", "open_clip.get_tokenizer"),
        "load_file",  # of safetensors
    },
    "convert.py": {"torch.load"},  # with weights_only=True (tests/test_safety.py)
    "probe.py": {"load_file"},  # of safetensors
    "weight_files.py": {"safe_open"},
}


def test_no_stage_reads_weights_past_the_loader():
    found = []
    for path in sorted((ROOT / "stages").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        ours = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "stages.models.weights"
            for alias in node.names
        }
        for node in ast.walk(tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ours or called in ALLOWED.get(path.name, ()):
                continue
            if called.endswith(LOADING):
                found.append(f"{path.relative_to(ROOT)}: {called}")
    assert found == []
