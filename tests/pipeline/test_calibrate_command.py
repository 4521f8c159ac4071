"""``editpairs calibrate`` on a run, and the run filtered again by what it wrote."""

import csv
import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.api import open_run
from pipeline.cli import app
from tests.pipeline.runs import ROOT
from tests.pipeline.scored_runs import is_right, scored_run, settings_of


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    return scored_run(tmp_path / "runs", monkeypatch)


def command(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def plan_of(run) -> list[dict]:
    return pq.read_table(run.folder / "plan.parquet").to_pylist()


def give_verdicts(run, tmp_path) -> None:
    lines = [
        (row["id"], k, "right" if is_right(row["seed"], k) else "wrong")
        for row in plan_of(run)
        for k in (0, 1)
    ]
    path = tmp_path / "verdicts.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "candidate", "verdict"), *lines])
    told = command("review", str(run.folder), "--from", str(path))
    assert told.exit_code == 0, told.output


def rerun_filter(tmp_path, *settings: str):
    pairs = [part for each in settings_of(tmp_path / "runs", *settings) for part in ("--set", each)]
    return command("rerun", "manifests/toybox.yaml", "--stage", "filter", "--engine", "local", *pairs)


def kept_of(run) -> dict[str, int]:
    rows = [
        row for part in (run.folder / "filter").glob("*.parquet") for row in pq.read_table(part).to_pylist()
    ]
    return {row["id"]: row["choice"] for row in rows if row["status"] == "kept"}


def test_calibrate_then_rerun_keeps_more_right_pairs_and_the_lock_holds_the_coefficients(run, tmp_path):
    give_verdicts(run, tmp_path)
    out = tmp_path / "model.json"
    told = command("calibrate", str(run.folder), "--precision", "0.95", "--out", str(out))
    assert told.exit_code == 0, told.output
    assert f"--set filter.model={out}" in told.output.replace("\n", "")
    seeds = {row["id"]: row["seed"] for row in plan_of(run)}
    before = kept_of(run)
    assert rerun_filter(tmp_path, f"filter.model={out}").exit_code == 0
    after = kept_of(run)
    right = [sum(is_right(seeds[row], choice) for row, choice in kept.items()) for kept in (before, after)]
    assert right[1] > 1.1 * right[0]
    assert right[1] / len(after) > 0.93
    written = json.loads(out.read_text())
    out.unlink()
    model = open_run(run.folder).manifest.filter.model
    assert model.tasks["color"].threshold == written["tasks"]["color"]["threshold"]
    assert set(written["scored_by"]) == {"clip.model", "grounding.model"}
    assert command("validate", str(run.folder)).exit_code == 0
    shard = next((run.folder / "shards").glob("*.parquet"))
    assert "filter.model" in json.loads(pq.read_table(shard)["models"][0].as_py())


def test_without_the_key_the_run_is_what_it_was_to_the_byte(run, tmp_path):
    give_verdicts(run, tmp_path)
    files = {
        path: path.read_bytes()
        for name in ("filter", "select", "shards")
        for path in (run.folder / name).iterdir()
    }
    assert command("calibrate", str(run.folder)).exit_code == 0
    model = run.folder / "model.json"
    assert rerun_filter(tmp_path, f"filter.model={model}").exit_code == 0
    assert any(path.read_bytes() != content for path, content in files.items())
    assert rerun_filter(tmp_path).exit_code == 0
    assert all(path.read_bytes() == content for path, content in files.items())


def test_what_is_published_of_a_task_is_ranked_by_probability(run, tmp_path):
    give_verdicts(run, tmp_path)
    assert command("calibrate", str(run.folder)).exit_code == 0
    model = open_run(run.folder).manifest.filter.model
    assert model is None
    told = rerun_filter(tmp_path, f"filter.model={run.folder / 'model.json'}", "select.balance={color: 0.2}")
    assert told.exit_code == 0, told.output
    model = open_run(run.folder).manifest.filter.model.tasks["color"]
    rows = [row for p in (run.folder / "filter").glob("*.parquet") for row in pq.read_table(p).to_pylist()]
    chosen = [row for p in (run.folder / "select").glob("*.parquet") for row in pq.read_table(p).to_pylist()]
    ranks, color = (
        {row["id"]: row["rank"] for row in rows},
        {r["id"] for r in plan_of(run) if r["task"] == "color"},
    )
    stay = [ranks[row["id"]] for row in chosen if row["id"] in color and row["status"] == "kept"]
    out = [ranks[row["id"]] for row in chosen if row["id"] in color and row["reason"] == "over_quota"]
    assert out
    assert stay
    assert max(out) <= min(stay)
    scores = open_run(run.folder).scores().set_index(["id", "candidate"])
    row = next(row for row in rows if row["id"] in color and row["status"] == "kept")
    found = scores.loc[(row["id"], row["choice"])]
    assert row["rank"] == pytest.approx(model.probability(dict(found[list(model.curves)])), abs=1e-5)


def test_a_model_for_other_scores_is_refused(run, tmp_path):
    give_verdicts(run, tmp_path)
    out = tmp_path / "model.json"
    assert command("calibrate", str(run.folder), "--out", str(out)).exit_code == 0
    content = json.loads(out.read_text())
    content["scored_by"]["clip.model"] = "content:another"
    out.write_text(json.dumps(content))
    told = rerun_filter(tmp_path, f"filter.model={out}")
    assert told.exit_code == 2
    assert "clip.model = content:another" in told.output
    assert "calibrate again" in told.output.replace("\n", " ")


def test_the_shipped_filter_is_for_the_shipped_weights(run, tmp_path):
    before = kept_of(run)
    told = rerun_filter(tmp_path, "filter.model=manifests/toybox-filter.json")
    assert told.exit_code == 0, told.output
    assert kept_of(run) != before


def test_what_is_missing_is_one_message(run, tmp_path):
    told = command("calibrate", str(run.folder))
    assert (told.exit_code, told.output.count("error:")) == (2, 1)
    assert "has no verdicts yet" in told.output.replace("\n", " ")
    path, row = tmp_path / "few.csv", plan_of(run)[0]
    path.write_text(f"id,candidate,verdict\n{row['id']},0,right\n")
    assert command("review", str(run.folder), "--from", str(path)).exit_code == 0
    told = command("calibrate", str(run.folder))
    assert told.exit_code == 2
    assert "judged right of at least 10 captions, and has 1" in told.output.replace("\n", " ")
    assert not (run.folder / "model.json").exists()
    assert command("calibrate", str(run.folder), "--precision", "1").exit_code == 2
    assert command("calibrate", str(tmp_path / "nothing")).exit_code == 2
