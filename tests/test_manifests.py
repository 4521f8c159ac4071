"""Every shipped manifest: it parses, its tasks load, its gates reach steps, its thresholds are known."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.manifest import read_manifest
from stages import STAGES
from stages.edit.draw import check_gates, needs_guidance
from stages.edit.recipe import with_candidates
from stages.filter import Filter
from stages.tasks import load_tasks

ROOT = Path(__file__).parents[1]
MANIFESTS = sorted((ROOT / "manifests").glob("*.yaml"))


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.stem)
def shipped(request):
    manifest = read_manifest(request.param, [], STAGES)
    tasks = load_tasks(manifest.tasks.prompts, manifest.tasks.exemplars, list(manifest.tasks.mixture))
    return request.param, manifest, tasks


def test_a_manifest_is_whole(shipped):
    path, manifest, tasks = shipped
    edit = manifest.section("edit")
    check_gates(edit, with_candidates(tasks, edit.candidates))
    Filter(manifest.section("filter"), tasks)
    assert set(edit.candidates) <= set(tasks), "a name that is no task is never used"
    assert manifest.name == path.stem


def test_a_header_says_the_command_and_the_cost(shipped):
    path, *_ = shipped
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(header)
    assert "make generate" in text
    assert "Needs:" in text
    assert "Cost and yield" in text


def test_guidance_is_off_where_the_model_has_none(shipped):
    path, manifest, tasks = shipped
    edit = manifest.section("edit")
    assert needs_guidance(edit, with_candidates(tasks, edit.candidates)) == (path.stem != "sdxl-turbo")


def test_check_passes_offline_where_its_files_are(shipped, tmp_path, monkeypatch):
    """With captions and weights in place, on a machine of its size; hub names are not looked up."""
    path, manifest, _ = shipped
    for name in ("prompts", "toybox"):
        (tmp_path / name).symlink_to(ROOT / name)
    captions = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"caption": ["a cat on a mat", "a dog in a park"]}), captions)
    models = [manifest.section("mask").grounding.model, manifest.section("mask").segmenter.model]
    overrides = [f"captions.file={captions}", f"runs={tmp_path / 'runs'}"]
    for key, model in zip(("grounding.model", "mask.segmenter.model"), models, strict=True):
        weights = tmp_path / "weights" / Path(model).name
        weights.mkdir(parents=True)
        (weights / "model.safetensors").write_bytes(b"weights")
        overrides.append(f"{key}={weights}")
    monkeypatch.chdir(tmp_path)
    arguments = [argument for override in overrides for argument in ("--set", override)]
    told = CliRunner().invoke(app, ["check", str(path), "--gpus", "8", "--cpus", "64", *arguments])
    assert told.exit_code == 0, told.output
    assert f"{manifest.name}: 2 captions" in told.output
    assert "Cost: not known before a pilot" in told.output
