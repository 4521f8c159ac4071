import json

import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.manifest.fingerprint import differences, fingerprint, model_identity, stage_identity
from stages.base import StageConfig, Weights
from stages.filter.stage import Filter, FilterConfig
from stages.tasks import Tasks, load_tasks
from tests.pipeline.fake_stages import FAKES, Draw
from tests.pipeline.runs import ROOT
from tests.stages.tiny_tasks import tiny_task


def identity(run, stage, *overrides):
    manifest = run.manifest(*overrides)
    tasks = load_tasks(manifest.tasks.prompts, None, list(manifest.tasks.mixture))
    return stage_identity(stage, FAKES[stage], manifest.section(stage, StageConfig), tasks)


@pytest.mark.parametrize(
    ("stage", "override"),
    [("write", "write.greeting=hi"), ("write", "write.batch=9"), ("draw", "diffusion.steps=9")],
)
def test_a_setting_is_part_of_it(run, stage, override):
    key, value = override.split("=")
    old, new = identity(run, stage), identity(run, stage, override)
    assert fingerprint(old) != fingerprint(new)
    assert [line.split(":")[0] for line in differences(old, new)] == [key]
    assert value in differences(old, new)[0]


@pytest.mark.parametrize(
    "override", ["draw.resources.workers=7", "write.greeting=hi", "diffusion.revision=x", "draw.pause=0"]
)
def test_what_does_not_change_the_output_is_not(run, override):
    assert fingerprint(identity(run, "draw")) == fingerprint(identity(run, "draw", override))


def test_only_declared_keys_of_planned_tasks_count(run):
    before = identity(run, "write", "tasks.mixture={remove: 1}")
    edit(run.folder / "prompts" / "add.yaml", "definition: add", "definition: put")
    edit(run.folder / "prompts" / "remove.yaml", "verbs: [remove]", "verbs: [erase]")
    assert identity(run, "write", "tasks.mixture={remove: 1}") == before
    edit(run.folder / "prompts" / "remove.yaml", "definition: remove", "definition: erase")
    after = identity(run, "write", "tasks.mixture={remove: 1}")
    assert differences(before, after) == ['task remove: definition: "remove something" -> "erase something"']


def test_weights_count_by_content_not_by_place(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    (tmp_path / "b" / "README.md").write_text("notes")
    (tmp_path / "b" / ".cache").write_text("x")
    a, b, c = (model_identity("clip", Weights(model=str(tmp_path / name))) for name in "abc")
    assert a == b != c


def test_hub_model_counts_by_name_and_revision():
    assert model_identity("clip", Weights(model="org/model")) == "org/model@main"
    assert model_identity("clip", Weights(model="org/model", revision="v1")) == "org/model@v1"


@pytest.mark.parametrize("model", ["./weights/clip", "/nowhere/clip", "~/no-such-folder", "here/clip"])
def test_missing_weights_name_the_key(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=r"^clip\.model: there are no weights at"):
        model_identity("clip", Weights(model=model))


def test_a_calibrated_filter_is_one_digest_and_nothing_while_there_is_none():
    def leaves(**settings):
        return stage_identity(
            "filter", Filter, FilterConfig(**settings), load_tasks(ROOT / "prompts", None, ["color"])
        )

    def model(intercept):
        return {"version": 1, "tasks": {"color": {"threshold": 0.5, "intercept": intercept}}}

    plain = leaves()
    assert not [key for key in plain if "model" in key]
    one, other = leaves(model=model(1)), leaves(model=model(2))
    assert {key: one[key] for key in plain} == plain
    assert one.keys() - plain.keys() == {"filter.model"}
    assert one["filter.model"].startswith("content:")
    assert one["filter.model"] != other["filter.model"]
    assert one == leaves(model=model(1))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_published_rows_name_the_models_that_made_them(run):
    run.generate()
    shards = (run.run / "shards").glob("*.parquet")
    [models] = {text for shard in shards for text in pq.read_table(shard)["models"].to_pylist()}
    identity = model_identity("diffusion", run.manifest().section("draw", Draw.Config).diffusion)
    assert identity.startswith("content:")
    assert json.loads(models) == {"diffusion.model": identity}


def test_a_later_field_counts_only_where_it_differs_from_older_runs():
    """Runs made before ``mask.segmenter.library`` existed keep their fingerprints."""
    from stages.mask.stage import Mask, MaskConfig

    detector = {"model": "IDEA-Research/grounding-dino-base"}
    published, hub = {"model": "toybox/weights/segmenter"}, {"model": "facebook/sam-vit-huge"}
    older, newer = (
        stage_identity("mask", Mask, MaskConfig.model_validate({"grounding": detector, "segmenter": sam}), {})
        for sam in (published, hub)
    )
    assert "mask.segmenter.library" not in older
    assert newer["mask.segmenter.library"] == "transformers"


def test_a_newer_key_of_a_candidate_counts_only_where_it_is_set(run):
    """Otherwise the runs of an earlier version would all be stale."""
    task = tiny_task(candidates=[{"mask": "soft"}, {"mask": "box", "blocks": 0.5}])
    drawing = type("Drawing", (FAKES["draw"],), {"task_keys": ["candidates"]})
    config = run.manifest().section("draw", StageConfig)
    found = stage_identity("draw", drawing, config, Tasks({"local": task}))
    first, second = found["task local: candidates"]
    assert "blocks" not in first
    assert second["blocks"] == 0.5
