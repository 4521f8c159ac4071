"""What a later stage would die of is named before the first one runs: all of it, by its key."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.engine.preflight import Machine, problems
from pipeline.errors import UserError
from pipeline.manifest.fingerprint import model_identity
from pipeline.manifest.manifest import read_manifest
from stages import STAGES
from stages.base import Weights
from stages.instruct.stage import InstructConfig
from stages.sessions.turns import unrolled
from tests.pipeline.fake_stages import FAKES
from tests.pipeline.runs import ROOT

TOYBOX = ROOT / "manifests" / "toybox.yaml"
PLENTY = Machine(cpus=8, gpus=1)


def found(*overrides, machine=PLENTY) -> list[str]:
    return problems(read_manifest(TOYBOX, overrides, STAGES), unrolled(1), machine)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def weights(tmp_path) -> Path:
    """A copy of the toybox's. Tests replace tensor files and never write into one, so those are links."""

    def copy(source: str, target: str) -> None:
        tensors = source.endswith(".safetensors")
        Path(target).symlink_to(source) if tensors else shutil.copyfile(source, target)

    return Path(shutil.copytree(ROOT / "toybox" / "weights", tmp_path / "weights", copy_function=copy))


KEYS = {
    "diffusion": "diffusion",
    "grounding": "detector",
    "clip": "clip",
    "mask.segmenter": "segmenter",
    "instruct": "language_model",
    "task_check.predictor": "task_predictor",
}


def in_(weights: Path) -> list[str]:
    return [f"{key}.model={weights / name}" for key, name in KEYS.items()]


def test_the_toybox_has_no_problems_and_is_asked_without_a_model_library():
    code = (
        "import sys; from tests.pipeline.test_preflight import found; assert found() == [], found(); "
        "print({'torch', 'ray', 'transformers', 'diffusers', 'open_clip'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert told.stdout.strip() == "set()", told.stderr


def test_every_model_that_is_not_there_is_named_at_once(tmp_path):
    lines = found(*in_(tmp_path / "none"))
    assert len(lines) == len(KEYS)
    for key in KEYS:
        assert any(line.startswith(f"{key}.model: there are no weights") for line in lines), key


@pytest.mark.parametrize("key", KEYS)
def test_a_home_folder_is_meant_by_a_tilde_everywhere(weights, monkeypatch, key):
    monkeypatch.setenv("HOME", str(weights.parent))
    assert found(f"{key}.model=~/weights/{KEYS[key]}") == []
    there = Weights(model=f"~/weights/{KEYS[key]}")
    assert there.path == weights / KEYS[key]
    assert there.name == str(weights / KEYS[key])
    assert there.source["local_files_only"]
    assert model_identity("x", there) == model_identity("x", Weights(model=str(weights / KEYS[key])))


FILES = sorted(
    str(path.relative_to(ROOT / "toybox" / "weights"))
    for name in KEYS.values()
    for path in (ROOT / "toybox" / "weights" / name).rglob("*.safetensors")
)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "header", "pickle"])
def test_weights_that_cannot_be_read_are_named(weights, file, damage):
    path = weights / file
    content = path.read_bytes()
    path.unlink()
    if damage == "pickle":
        path.with_name("pytorch_model.bin").write_bytes(content)
    elif damage != "missing":
        path.write_bytes({"empty": b"", "cut": content[:-1], "header": b"\xff" * 8 + content[8:]}[damage])
    [line] = found(*in_(weights))
    key = next(key for key, name in KEYS.items() if file.startswith(name))
    assert line.startswith(f"{key}.model: ")
    assert path.name in line


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("diffusion/model_index.json", "diffusion"),
        ("diffusion/scheduler/scheduler_config.json", "diffusion"),
        ("diffusion/unet/config.json", "diffusion"),
        ("detector/config.json", "grounding"),
        ("detector/text_encoder/config.json", "grounding"),
        ("segmenter/config.json", "mask.segmenter"),
        ("clip/open_clip_config.json", "clip"),
        ("language_model/config.json", "instruct"),
        ("task_predictor/config.json", "task_check.predictor"),
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff"])
def test_a_config_that_cannot_be_read_is_named(weights, file, key, content):
    (weights / file).unlink()
    if content is not None:
        (weights / file).write_bytes(content)
    [line] = found(*in_(weights))
    assert line.startswith(f"{key}.model: ")
    assert Path(file).name in line


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("other", sorted({*KEYS.values()}))
def test_a_model_of_another_kind_is_named(weights, key, other):
    lines = found(f"{key}.model={weights / other}")
    assert (lines == []) == (KEYS[key] == other)
    assert all(line.startswith((f"{key}.model: ", f"{key}.revision")) for line in lines)


def test_a_chat_model_has_a_template_and_a_predictor_s_labels_are_tasks(weights):
    (weights / "language_model" / "chat_template.jinja").unlink()
    config = weights / "task_predictor" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"id2label": {"0": "explode"}}))
    template, labels = found(*in_(weights))
    assert "instruct.model: " in template
    assert "no chat template" in template
    assert labels.startswith("task_check.predictor.model: its labels.explode: there is no such task")


def test_more_steps_than_the_scheduler_has_are_named(weights):
    path = weights / "diffusion" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_train_timesteps": 10}))
    assert "diffusion.steps: at most 10 (num_train_timesteps of" in "\n".join(found(*in_(weights)))
    [line] = found("diffusion.sampler=lcm", "diffusion.steps=51")
    assert line.startswith("diffusion.steps: at most 50 (original_inference_steps")


def test_a_gate_that_touches_no_step_is_named():
    [line] = found(
        "diffusion.steps=4", "edit.candidates.local=[{self_until: 0.1}]", "tasks.mixture={local: 1}"
    )
    assert "candidates[0].self_until = 0.1 touches none of diffusion.steps = 4" in line


def test_a_task_without_its_model_is_named():
    lines = found("tasks.mixture={depth: 1, pose: 1}", "tasks.exemplars=null")
    assert any("set edit.depth.model" in line for line in lines)
    assert any("set edit.pose.model" in line for line in lines)


def test_optional_models_and_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.score.optional.find_spec", lambda name: None)
    other = ROOT / "toybox" / "weights" / "task_predictor"
    lines = found(
        "score.ocr=true", f"score.dino.model={other}", f"score.aesthetic.model={other / 'model.safetensors'}"
    )
    assert [line.partition(": ")[0] for line in lines] == [
        "score.dino.model",
        "score.aesthetic.model",
        "score.ocr",
    ]


@pytest.mark.parametrize(
    ("bound", "key"),
    [
        ("filter.default.dino=0.5", "score.dino"),
        ("filter.default.depth_change={max: 0.2}", "score.depth"),
        ("filter.tasks.text.text_read=0.9", "score.ocr"),
        ("filter.tasks.add.nsfw={max: 0}", "score.nsfw"),
        ("filter.default.aesthetic=5", "score.aesthetic"),
    ],
)
def test_a_bound_on_what_nothing_measures_is_named(bound, key):
    lines = found("tasks.mixture={text: 1, add: 1}", "tasks.exemplars=null", bound)
    name = bound.partition("=")[0]
    assert f"{name}: nothing measures it: set {key}, or take the bound out" in lines


def test_a_bound_on_what_is_measured_or_on_a_task_of_no_run_is_not_named():
    assert not [line for line in found("filter.tasks.text.text_read=0.9") if "measures" in line]
    dino = f"score.dino.model={ROOT / 'toybox' / 'weights' / 'task_predictor'}"
    assert not [line for line in found("filter.default.dino=0.5", dino) if "measures" in line]


def test_a_clip_s_name_and_tag_are_those_that_open_clip_has():
    assert found("clip={model: ViT-B-32, revision: openai}") == []
    assert found("clip={model: ViT-B-32, revision: laion2b-s34b-b79k}") == []
    assert "clip.revision: is not set: which weights of ViT-B-32" in found("clip={model: ViT-B-32}")[0]
    assert "'none' is none of its tags" in found("clip={model: ViT-B-32, revision: none}")[0]
    [line] = found("clip={model: ViT-B-33, revision: openai}")
    assert line.startswith("clip.model: 'ViT-B-33' is neither a folder nor a model")


def test_what_can_be_no_hub_name_is_named():
    [line] = found("diffusion.model=s3://bucket/sdxl")
    assert line.startswith("diffusion.model: 's3://bucket/sdxl' is neither a path nor a hub name")


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def endpoint(url: str) -> list[str]:
    return [f'instruct.endpoint={{base_url: "{url}"}}', "instruct.model=/the/server/s/own"]


def test_an_endpoint_that_is_there_has_no_problems(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    assert found(*endpoint(server)) == []


def test_a_dead_endpoint_and_an_unset_key_are_named_at_once(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    key, dead = found(*endpoint(f"http://127.0.0.1:{port}/v1"))
    assert key.startswith("instruct.endpoint.api_key_variable: the environment has no OPENAI_API_KEY")
    assert dead.startswith(f"instruct.endpoint.base_url: nothing answers at 127.0.0.1, port {port}")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host/v1", "http://", "http://[::1", "http://a:99999", ""]
)
def test_what_is_no_url_is_named(url, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    with pytest.raises(UserError, match=r"instruct\.endpoint\.base_url"):
        found(*endpoint(url))


def test_a_server_s_model_is_no_path():
    config = InstructConfig(model="/the/server/s/own", endpoint={"base_url": "http://h"})
    assert config.path is None
    assert model_identity("instruct", config) == "/the/server/s/own@main"


def test_a_machine_without_the_gpu_of_a_later_stage():
    lines = found("edit.resources.gpus=1", "score.resources.gpus=2", machine=Machine(8, 0))
    assert [line.partition(":")[0] for line in lines] == ["edit.resources.gpus", "score.resources.gpus"]
    assert found("edit.resources.gpus=1", machine=None) == []


def test_hidden_gpus_are_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Machine.here().gpus == 0


@pytest.mark.parametrize("runs", ["/etc/hostname/x", "/proc/x", "/dev/null"])
def test_a_folder_that_cannot_be_written_is_named(runs):
    [line] = found(f"runs={runs}")
    assert line.startswith(f"runs: {runs}/toybox cannot be written: ")


def test_nothing_is_left_behind(tmp_path):
    assert found(f"runs={tmp_path}/a/b") == []
    assert list(tmp_path.iterdir()) == []


def test_missing_captions_and_models_are_one_message(tmp_path):
    lines = found("captions.file=none.txt", "clip.model=./none", "filter.tasks.explode.change=0")
    assert [line.partition(":")[0] for line in lines] == [
        "captions.file",
        "clip.model",
        "filter.tasks.explode",
    ]


def test_generate_names_all_at_once_and_plans_nothing(run):
    with pytest.raises(UserError) as error:
        run.generate("captions.file=none.txt", "diffusion.model=./none", "sieve.tasks.x={}")
    assert len(str(error.value).splitlines()) == 3
    assert not run.run.exists()


def refuse(monkeypatch, name: str) -> None:
    """Let a fake stage have a problem."""
    monkeypatch.setattr(FAKES[name], "problems", classmethod(lambda *_: ["endpoint: dead"]))


def test_what_is_done_is_not_asked_about_again(run, monkeypatch):
    run.generate()
    refuse(monkeypatch, "write")
    run.generate()
    run.generate("draw.pause=0.001", replace=True)
    with pytest.raises(UserError, match="endpoint: dead"):
        run.generate("write.greeting=kindly", replace=True)
    with pytest.raises(UserError, match="endpoint: dead"):
        run.rerun("write", replace=True)


def test_a_later_stage_is_asked_before_the_first_is_paid_for(run, monkeypatch):
    refuse(monkeypatch, "draw")
    with pytest.raises(UserError, match="endpoint: dead"):
        run.generate()
    assert not run.files()


def test_what_cannot_be_read_is_not_missing(weights):
    """A folder in a file's place: root may not read it either."""
    config = weights / "detector" / "config.json"
    config.unlink()
    config.mkdir()
    [line] = found(*in_(weights))
    assert line.startswith("grounding.model")
    assert "has no config.json" not in line
