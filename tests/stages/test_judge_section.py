"""The manifest's section ``judge``: left out, given, wrong."""

import pytest

from pipeline.errors import UserError
from pipeline.manifest.manifest import manifest_model, read_manifest
from stages import STAGES
from stages.judge.config import JudgeConfig
from tests.pipeline.runs import ROOT

TOYBOX = ROOT / "manifests" / "toybox.yaml"


@pytest.mark.parametrize("overrides", [[], ["judge=null"], ["judge="]])
def test_an_optional_stage_without_a_section_is_left_out_and_not_written_to_the_lock(overrides, monkeypatch):
    monkeypatch.chdir(ROOT)
    manifest = read_manifest(TOYBOX, overrides, STAGES)
    assert "judge" in manifest.left_out
    assert "judge" not in manifest.sections
    assert "judge" not in manifest.model_dump(exclude=manifest.left_out)


def test_a_section_of_an_optional_stage_survives_the_lock_with_its_wording(monkeypatch):
    monkeypatch.chdir(ROOT)
    manifest = read_manifest(TOYBOX, ["judge.model=org/model"], STAGES)
    assert "judge" not in manifest.left_out
    assert "You judge one edit" in manifest.section("judge", JudgeConfig).prompt.marks
    content = manifest.model_dump(mode="json")
    assert manifest_model(STAGES).model_validate(content).model_dump() == manifest.model_dump()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["judge.attempts=2"], "the key 'judge.model' is missing"),
        (["judge.model=m", "judge.diference=same"], "did you mean 'judge.difference'"),
        (["judge.model=m", "judge.difference=both"], r"judge\.difference: .*'none', 'same' or 'second'"),
        (
            ["judge.model=m", "judge.prompt=nowhere.yaml"],
            r"judge\.prompt: nowhere\.yaml cannot be read: No such",
        ),
        (
            ["judge.model=m", "judge.prompt=prompts/add.yaml"],
            r"judge\.prompt: prompts/add\.yaml: key 'marks'",
        ),
        (["judge.model=m", "judge.prompt=README.md"], r"judge\.prompt: README\.md"),
        (
            ["judge.model=m", "judge.endpoint.base_url=http://me:hunter2@h/v1"],
            r"judge\.endpoint\.base_url: it may hold no user",
        ),
    ],
)
def test_a_wrong_key_of_the_judge_is_named(overrides, told, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=told) as raised:
        read_manifest(TOYBOX, overrides, STAGES)
    assert "hunter2" not in str(raised.value)
