"""``editpairs regenerate``: one row made again alone is equal to the bit, or it is told what differs."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.audit.regenerate import compare
from pipeline.cli import app
from pipeline.store.sealed import Place, read_metadata
from pipeline.store.sealed_writer import SealedWriter
from stages.pictures.png import encode_png
from tests.toybox_runs import ROOT, STAGES, Run


def rows_kept(run: Run) -> list[dict]:
    return run.shards()[["id", "task"]].to_dict("records")


def told_about(run: Run, row_id: str):
    return CliRunner().invoke(app, ["regenerate", str(run.folder), row_id])


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_kept_row_made_again_alone_is_equal_to_the_bit(toybox_run):
    row = next(row for row in rows_kept(toybox_run) if row["task"] in ("color", "texture", "local", "global"))
    told = told_about(toybox_run, row["id"])
    assert told.exit_code == 0, told.output
    assert told.output.count("equal to the bit") == len(STAGES) - 1, "all but select, which sees the run"


def test_a_part_that_was_changed_is_told(toybox_run, tmp_path):
    changed = Run(tmp_path)
    shutil.copytree(toybox_run.folder, changed.folder)
    row = rows_kept(changed)[0]
    for path in sorted((changed.folder / "instruct").glob("*.parquet")):
        table = pq.read_table(path)
        records = table.to_pylist()
        for record in records:
            if record["id"] == row["id"]:
                record["verb"] = "do"
        footer, _ = read_metadata(path, None)
        place = Place(footer["run"], footer["stage"], footer["unit"])
        with SealedWriter(path, table.schema) as writer:
            writer.write(pa.Table.from_pylist(records, schema=table.schema))
            writer.commit(place, footer)
    told = told_about(changed, row["id"])
    assert told.exit_code == 1, told.output
    assert "verb: 'do', now" in told.output


def test_a_part_that_cannot_be_believed_is_named(toybox_run, tmp_path):
    changed = Run(tmp_path)
    shutil.copytree(toybox_run.folder, changed.folder)
    for path in (changed.folder / "mask").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    told = told_about(changed, rows_kept(changed)[0]["id"])
    assert told.exit_code == 2
    assert "mask/0000" in told.output


def test_an_unknown_row_is_an_error(toybox_run):
    told = told_about(toybox_run, "nobody")
    assert told.exit_code != 0
    assert "plans no row 'nobody'" in told.output


def test_differences_are_told_in_their_own_units():
    picture = np.zeros((8, 8, 3), np.uint8)
    other = picture.copy()
    other[:2] = 3
    before = pa.table({"id": ["a"], "image": [encode_png(picture)], "score": [[0.5, 1.0]], "same": [1]})
    after = pa.table({"id": ["a"], "image": [encode_png(other)], "score": [[0.5, 1.25]], "same": [1]})
    assert compare(before, after) == {
        "image": "25.00% of the pixels, by 3 levels at most",
        "score": "[1] +0.25",
    }
