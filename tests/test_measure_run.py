"""The measure stage added to a finished run makes only what depends on it; taken out, all is as it was."""

import shutil

import pandas
import pytest
from typer.testing import CliRunner

from pipeline.api import open_run
from pipeline.cli import app
from stages.score.metrics import FURTHER
from stages.shards.columns import columns_of
from tests.toybox_runs import ROOT, STAGES, Run
from toybox.evaluation.judge import FILE

pytestmark = pytest.mark.skipif(not FILE.exists(), reason="trained by `make toybox`")
BEFORE = STAGES[:6]
MEASURED = ("measure.seam=true", "measure.counts=true", "measure.region_clip=true")
ON_THE_TOYBOX = ["seam", "count_error", "region_text", "region_direction"]


@pytest.fixture
def run(toybox_run, tmp_path) -> Run:
    """A finished run that this test may change."""
    made = Run(tmp_path)
    shutil.copytree(toybox_run.folder, made.folder, copy_function=shutil.copy2)
    return made


def test_further_metrics_added_to_a_run_and_taken_out_again(run):
    contents = {name: content for name, (content, _) in run.files(*STAGES, "shards").items()}
    made = run.files(*BEFORE)
    run.generate_here(*MEASURED)
    assert run.files(*BEFORE) == made, "what is measured was not made again"
    frame = pandas.read_parquet(run.folder / "shards")
    objects = frame[(frame.method == "prompt2prompt") & ~frame.task.isin(["background", "global"])]
    assert len(objects) >= 3
    assert objects[ON_THE_TOYBOX].notna().all(axis=None)
    assert frame[["lpips_outside", "dino_outside"]].isna().all(axis=None)
    assert frame[frame.method != "prompt2prompt"][list(FURTHER)].isna().all(axis=None)
    opened = open_run(run.folder)
    assert set(ON_THE_TOYBOX) <= set(opened.pairs(task=objects.task.iloc[0])[0].scores)
    assert opened.scores().count_error.notna().any()
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in columns_of(["measure"]))
    for command in ("validate", "report", "inspect"):
        told = CliRunner().invoke(app, [command, str(run.folder)])
        assert told.exit_code == 0, (command, told.output)
    run.generate_here(*MEASURED, "filter.default.count_error.max=0", "filter.default.seam.max=0")
    reasons = set(opened.scores().reason)
    assert {"count_error_high", "seam_high"} & reasons, "bounds on them reject rows like any other"
    run.generate_here()
    assert {name: content for name, (content, _) in run.files(*STAGES, "shards").items()} == contents


def test_a_bound_on_a_metric_that_is_not_turned_on_is_refused(run):
    for settings in ((), ("measure.counts=true",)):
        code, told = checked(run, *settings, "filter.default.seam.max=0.1")
        assert code == 2
        assert "filter.default.seam: nothing measures it: set measure.seam" in told
    code, told = checked(run, "measure.lpips.model=/nowhere")
    assert code == 2
    assert "measure.lpips.model: there are no weights at /nowhere" in told


def checked(run: Run, *settings: str) -> tuple[int, str]:
    """Exit code and words of ``editpairs check``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        told = CliRunner().invoke(app, run.command("check", settings=settings)[3:])
    return told.exit_code, " ".join(told.output.split())
