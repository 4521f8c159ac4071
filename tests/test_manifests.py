"""Every shipped manifest: it parses, its tasks load, its gates reach steps, its thresholds are known."""

import pytest

from pipeline.manifest.manifest import read_manifest, tasks_of
from stages import STAGES
from stages.edit.config import EditConfig
from stages.edit.prompt_to_prompt.windows import check_gates, with_candidates
from stages.edit.rounds import RoundCandidates
from stages.edit.suited import needs_guidance
from stages.filter.stage import Filter, FilterConfig
from tests.pipeline.runs import MANIFESTS


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.stem)
def shipped(request):
    manifest = read_manifest(request.param, [], STAGES)
    return request.param, manifest, tasks_of(manifest)


def test_a_manifest_is_whole(shipped):
    path, manifest, tasks = shipped
    edit = manifest.section("edit", EditConfig)
    candidates = RoundCandidates(tasks, edit.candidates, edit.rounds, edit.diffusion.steps)
    for round in range(1, 10):
        varied = {name: candidates.of(name, round) for name in tasks}
        check_gates(edit.diffusion.steps, with_candidates(tasks, varied))
    Filter(manifest.section("filter", FilterConfig), tasks)
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
    edit = manifest.section("edit", EditConfig)
    candidates = RoundCandidates(tasks, edit.candidates, edit.rounds, edit.diffusion.steps)
    assert needs_guidance(edit, candidates.stated()) == (
        path.stem not in ("sdxl-turbo", "flux-schnell", "z-image")
    )
