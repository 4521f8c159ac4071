"""``source.preview_steps``: the source stage draws with fewer steps what the edit stage draws again."""

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.manifest.fingerprint import fingerprint, stage_identity
from stages.source.stage import Source
from stages.tasks import Tasks
from tests.stages.test_finite import plan
from tests.stages.tiny_pipelines import save_stable_diffusion
from tests.stages.tiny_tasks import tiny_task

COLUMNS = ("id", "caption", "task", "seed", "output_caption", "surroundings")
DRAWN, COMPUTED = {"local": tiny_task()}, {"local": tiny_task(method="sketch", candidates=[])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    save_stable_diffusion(root / "diffusion")
    return root


def config(folder, *, steps=6, sampler="ddim", **keys):
    diffusion = {"model": str(folder / "diffusion"), "steps": steps, "sampler": sampler}
    return Source.Config.model_validate({"diffusion": diffusion, "batch": 2, **keys})


def drawn(settings, tasks):
    rows = pa.table({name: column for name, column in plan(0, 1).items() if name in COLUMNS})
    return Source(settings, Tasks(tasks))(rows)["source_image"].to_pylist()


def test_pictures_that_are_drawn_again_have_fewer_steps_and_published_ones_all(folder):
    preview, whole, short = (
        config(folder, preview_steps=3),
        config(folder),
        config(folder, steps=3),
    )
    assert drawn(preview, DRAWN) == drawn(short, DRAWN) != drawn(whole, DRAWN)
    assert drawn(preview, COMPUTED) == drawn(whole, COMPUTED)


def test_a_task_that_is_computed_from_now_on_makes_its_previews_stale(folder):
    def name(settings, tasks):
        return fingerprint(stage_identity("source", Source, settings, Tasks(tasks)))

    preview, whole = config(folder, preview_steps=3), config(folder)
    assert name(preview, DRAWN) != name(preview, COMPUTED)
    assert name(whole, DRAWN) == name(whole, COMPUTED)
    assert not any("preview" in key for key in stage_identity("source", Source, whole, Tasks(DRAWN)))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"preview_steps": 6}, "is not below diffusion.steps = 6"),
        ({"preview_steps": 3, "sampler": "euler_ancestral"}, "needs a sampler that adds no noise"),
        ({"preview_steps": 0}, "greater than or equal to 1"),
    ],
)
def test_previews_of_another_picture_are_refused(folder, wrong, told):
    with pytest.raises(ValidationError, match=told):
        config(folder, **wrong)
