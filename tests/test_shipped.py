"""Paths of manifests and commands: the working folder first, then the files that came with editpairs."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.manifest.manifest import read_manifest, tasks_of
from pipeline.manifest.named import find_manifest
from stages import STAGES
from stages.mask.stage import MaskConfig
from stages.score.stage import ScoreConfig
from stages.shipped import manifest_names, resolve
from stages.source.stage import Source
from tests.toybox_runs import ROOT

SHIPPED = [
    "prompts",
    "prompts/add.yaml",
    "manifests/toybox.yaml",
    "toybox/weights/clip",
    "toybox/captions.jsonl",
]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", SHIPPED)
def test_what_came_with_editpairs_is_found_from_an_empty_folder(elsewhere, path):
    assert resolve(Path(path)) == ROOT / path


@pytest.mark.parametrize("path", SHIPPED)
def test_the_working_folder_comes_first(elsewhere, path):
    (elsewhere / path).mkdir(parents=True)
    assert resolve(Path(path)) == Path(path)


@pytest.mark.parametrize("path", ["README.md", "tests", "stages/base.py", "toybox/nothing", "", "nowhere/x"])
def test_nothing_else_of_the_installation_is_found(elsewhere, path):
    assert resolve(Path(path)) == Path(path)


def test_a_shipped_manifest_means_the_same_from_an_empty_folder(elsewhere, monkeypatch):
    here = read_manifest(find_manifest("toybox"), [], STAGES)
    weights = [
        here.section("source", Source.Config).diffusion,
        here.section("score", ScoreConfig).clip,
        here.section("mask", MaskConfig).segmenter,
    ]
    assert all(section.path is not None and section.path.is_dir() for section in weights)
    assert here.captions.location.is_file()
    assert here.model_dump_json().count(str(ROOT)) == 0, "paths are written to the lock as they were given"
    tasks = dict(tasks_of(here))
    monkeypatch.chdir(ROOT)
    there = read_manifest(Path("manifests/toybox.yaml"), [], STAGES)
    assert there.model_dump() == here.model_dump()
    assert dict(tasks_of(there)) == tasks


def test_a_hub_name_stays_one(elsewhere):
    manifest = read_manifest(find_manifest("sdxl"), [], STAGES)
    assert manifest.section("source", Source.Config).diffusion.path is None


@pytest.mark.parametrize("given", ["toybox", "manifests/toybox.yaml", ROOT / "manifests/toybox.yaml"])
def test_a_manifest_is_a_name_or_a_path(elsewhere, given):
    assert find_manifest(given) == ROOT / "manifests/toybox.yaml"


def test_a_name_means_a_manifest_although_a_folder_has_it_too(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert find_manifest("toybox") == Path("manifests/toybox.yaml")


def test_names_are_those_of_the_files():
    assert manifest_names() == sorted(path.stem for path in (ROOT / "manifests").glob("*.yaml"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("toyboks", "did you mean toybox?"),
        ("manifests/toyboxx.yaml", "did you mean toybox?"),
        ("mine/trail.yaml", r"did you mean mine/trial.yaml\?"),
        ("mine", "is not a file"),
        ("qqqq", "one that comes with editpairs: .*toybox"),
    ],
)
def test_a_manifest_that_is_not_there_is_told_with_the_nearest_name(elsewhere, given, told):
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "trial.yaml").write_text("name: x")
    with pytest.raises(UserError, match=told):
        find_manifest(given)
