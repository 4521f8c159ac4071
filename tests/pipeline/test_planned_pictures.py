"""Rows with pictures: planned, given to their stages, and the stages of a run that has them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.api import chain_of
from pipeline.engine.given import given_rows
from pipeline.errors import UserError
from pipeline.inputs.pictures import Pictures
from pipeline.manifest.manifest import Manifest, read_manifest
from pipeline.manifest.steps import Step
from pipeline.store.folder import RunFolder
from stages import STAGES
from stages.base import PICTURES
from stages.placed import PlacedStage
from stages.rounds.again import PhotographsAgain
from stages.source.photographs import Photographs
from tests.pipeline.fake_stages import Write
from tests.pipeline.runs import ROOT
from tests.pipeline.test_pictures import folder, write
from tests.pipeline.test_planning import plan_of

__all__ = ["folder"]  # a fixture


def test_rows_are_planned_with_their_pictures(make_run, folder):
    path = write(folder, ".csv", ["a.png", "below/b c.png", "gone.png"])
    run = make_run("pictures")
    keys = [f"captions={{file: {path}, column: caption, picture: image}}", "repeats=2"]
    plan, rows = plan_of(run, *keys)
    assert plan.settings["captions.picture"] == "image"
    assert [row["picture"] for row in rows] == [
        ["a.png", "below/b c.png", "gone.png"][row["row"]] for row in rows
    ]
    assert len({row["picture_digest"] for row in rows}) == 3
    assert [row["picture_flaw"] for row in rows] == ["picture_missing" * (row["row"] == 2) for row in rows]
    with pytest.raises(UserError, match=r"captions\.picture: 'image' -> None"):
        plan_of(run, f"captions={{file: {path}, column: caption}}", "repeats=2")


def test_equal_captions_of_different_pictures_are_no_duplicates(make_run, folder):
    rows = [{"caption": "a dog", "image": name} for name in ("a.png", "below/b c.png", "a.png")]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    captions = f"captions={{file: {folder / 'c.jsonl'}, picture: image}}"
    assert [row["row"] for row in plan_of(make_run("paths"), captions)[1]] == [0, 1]
    table = pa.table({"caption": ["a dog"] * 2, "image": pa.array([b"1", b"2"])})
    pq.write_table(table, folder / "c.parquet")
    captions = f"captions={{file: {folder / 'c.parquet'}, picture: image}}"
    assert [row["row"] for row in plan_of(make_run("bytes"), captions)[1]] == [0, 1]


def test_a_stage_is_given_its_rows_pictures(make_run, folder):
    path = write(folder, ".csv", ["a.png", "gone.png", "below/b c.png"])
    run = make_run("given")
    _, rows = plan_of(run, f"captions={{file: {path}, picture: image}}")
    reads = {"plan": ["caption"], PICTURES: ["picture_bytes", "picture_flaw"]}
    step = Step("write", "", ())
    ids = pa.array([row["id"] for row in rows])
    tables = given_rows(
        RunFolder(run.run),
        step,
        PlacedStage("write", Write, 1, reads),
        0,
        ids,
        2,
        {},
        Pictures(path, "image"),
    )
    given = [row for table in tables for row in table.to_pylist()]
    assert [row["picture_bytes"] for row in given] == [b"first", None, b"second"]
    assert set(given[0]) == {"id", "caption", "picture_bytes", "picture_flaw"}
    assert [row["id"] for row in given] == ids.to_pylist()


def manifest(*settings: str) -> Manifest:
    return read_manifest(ROOT / "manifests" / "toybox.yaml", settings, STAGES)


def test_a_run_with_pictures_has_the_stages_for_them_in_every_round():
    chain = chain_of(manifest("captions.picture=image", "rounds=2"))
    assert chain["source"].stage is Photographs
    assert chain["source.r2"].stage is PhotographsAgain
    assert chain["source.r2"].reads[PICTURES] == ["picture_bytes", "picture_flaw"]
    assert chain["edit"].stage.photographs
    assert chain["edit.r2"].stage.photographs
    drawn = chain_of(manifest())
    assert drawn["source"].stage is STAGES["source"]
    assert drawn["edit"].stage is STAGES["edit"]


def test_sessions_of_pictures_are_refused():
    with pytest.raises((UserError, ValidationError), match=r"captions\.picture: .*turns: 1"):
        manifest("captions.picture=image", "turns=2")
