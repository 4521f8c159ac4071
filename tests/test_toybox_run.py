"""The toybox through every stage, on real Ray, as a user runs it: the command line in a subprocess."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.store.new_file import temporary
from stages.pictures.png import decode_rgb
from stages.tasks import load_tasks
from tests.toybox_runs import ROOT, STAGES, Run
from tests.waiting import wait_for


@pytest.fixture
def run(toybox_run) -> Run:
    return toybox_run


def test_every_row_is_accounted_for(run):
    given = pq.read_table(run.folder / "plan.parquet").num_rows
    assert given == 22
    for stage in STAGES:
        tables = [pq.read_table(path) for path in sorted((run.folder / stage).glob("*.parquet"))]
        statuses = [status for table in tables for status in table["status"].to_pylist()]
        assert len(statuses) == given, stage
        assert "failed" not in statuses, [t["reason"].to_pylist() for t in tables]
        given = statuses.count("kept")
    assert len(run.shards()) == given


def test_shards_hold_true_pairs(run):
    rows = run.shards()
    tasks = load_tasks(ROOT / "prompts")
    assert len(rows) >= 3
    for row in rows.itertuples():
        first, second = decode_rgb(row.I["bytes"]), decode_rgb(row.Tar["bytes"])
        assert first.shape == second.shape == (64, 64, 3)
        assert np.abs(first.astype(float) - second).mean() > 0.5, "nothing changed"
        assert row.T.strip()
        assert tasks[row.task].index == row.TI


def test_scores_of_rejected_rows_and_candidates_are_kept(run):
    for path in sorted((run.folder / "filter").glob("*.parquet")):
        statuses = pq.read_table(path)["status"].to_pylist()
        scores = pq.read_table(run.folder / "score" / path.name)["scores"].to_pylist()
        candidates = pq.read_table(run.folder / "edit" / path.name)["candidates"].to_pylist()
        judged = [c for c in candidates if c]
        assert len(statuses) == len([s for s in scores if s])
        assert [len(s) for s in scores if s] == [len(c) for c in judged], "every candidate has its scores"


def test_the_published_anchor_is_the_source_picture(run):
    for path in (run.folder / "edit").glob("*.parquet"):
        for drift in pq.read_table(path)["source_drift"].to_pylist():
            assert drift is None or drift < 0.01


def test_generate_again_finds_nothing_to_do(run):
    before = run.files(*STAGES, "shards")
    run.call("generate")
    assert run.files(*STAGES, "shards") == before


def test_a_threshold_rewrites_filter_and_shards_only(tmp_path, run):
    changed = Run(tmp_path)
    shutil.copytree(run.folder, changed.folder)
    images, decisions = changed.files(*STAGES[:-2]), changed.files("filter")
    probe = (
        "import sys, pipeline.cli as cli\n"
        "try:\n    cli.main()\n"
        "finally:\n    print('TORCH', 'torch' in sys.modules, 'RAY', 'ray' in sys.modules)\n"
    )
    bounds = tuple(f"filter.{key}.clip_direction=0.999" for key in ("default", "tasks.texture"))
    command = changed.command("rerun", "--stage", "filter", settings=bounds)
    done = subprocess.run(
        [sys.executable, "-c", probe, *command[3:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TORCH False RAY False" in done.stdout
    assert changed.files(*STAGES[:-2]) == images
    assert changed.files("filter") != decisions
    assert set(changed.shards()["task"]) <= {"detect", "segment", "adjust", "sketch"}, (
        "they have no direction"
    )


def test_what_a_killed_driver_left_goes_on_to_the_same_shards_on_ray(tmp_path, run):
    """As the driver's end after the first part of ``edit`` leaves a run."""
    left = Run(tmp_path)
    shutil.copytree(run.folder, left.folder)
    (left.folder / "edit" / "00001.parquet").unlink()
    for stage in ("score", "filter", "select", "shards"):
        shutil.rmtree(left.folder / stage)
    temporary(left.folder / "edit" / "00001.parquet", "0af3").write_bytes(b"half a part")
    committed = left.files(*STAGES)
    assert len(left.files("edit")) == 1
    assert not left.files("score", "filter", "select", "shards")
    left.call("generate")
    after = left.files(*STAGES)
    assert {name: after[name] for name in committed} == committed, "no committed part is done twice"
    assert not list(left.folder.rglob("*.tmp"))
    shards = {name: content for name, (content, _) in left.files("shards").items()}
    assert shards == {name: content for name, (content, _) in run.files("shards").items()}


@pytest.mark.full
def test_driver_killed_in_edit_goes_on_to_the_same_shards(tmp_path, run):
    killed = Run(tmp_path)
    driver = subprocess.Popen(
        killed.command("generate", settings=("edit.resources.workers=1",)),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: list((killed.folder / "edit").glob("0*.parquet")), driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    committed = killed.files(*STAGES)
    assert len(killed.files("edit")) == 1
    assert not killed.files("score")
    killed.call("generate")
    after = killed.files(*STAGES)
    assert {name: after[name] for name in committed} == committed, "no committed part is done twice"
    shards = {name: content for name, (content, _) in killed.files("shards").items()}
    assert shards == {name: content for name, (content, _) in run.files("shards").items()}


def test_pandas_datasets_and_duckdb_read_the_shards(run, tmp_path):
    import duckdb
    from datasets import load_dataset

    pattern = str(run.folder / "shards" / "train-*.parquet")
    rows = load_dataset("parquet", data_files=pattern, split="train", cache_dir=str(tmp_path))
    assert rows[0]["I"].size == (64, 64)
    assert rows[0]["Tar"].mode == "RGB"
    frame = run.shards()
    assert {"I", "T", "Tar", "TI", "id", "task", "mask", "seed", "clip_direction"} <= set(frame.columns)
    counted = duckdb.sql(f"select count(*) from '{pattern}' where TI >= 0").fetchall()
    assert counted == [(len(frame),)]


def test_inspect_draws_a_contact_sheet(run, tmp_path):
    out = tmp_path / "sheet.png"
    command = [sys.executable, "-m", "pipeline.cli", "inspect", str(run.folder), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert decode_rgb(out.read_bytes()).shape[0] > 64


def test_missing_weights_are_named_before_anything_starts(tmp_path):
    bare = Run(tmp_path)
    command = bare.command("generate", settings=("clip.model=toybox/weights/nowhere",))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "clip.model" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("instruct/*.parquet"))
