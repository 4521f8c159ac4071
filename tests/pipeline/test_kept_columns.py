"""Other columns of the captions: read from every format, planned, and published with their rows."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.api import chain_of
from pipeline.audit.validate import validate
from pipeline.errors import UserError
from pipeline.inputs.kept_columns import LONGEST, read_kept
from pipeline.manifest.manifest import read_manifest
from stages import STAGES
from stages.shards.columns import CHOICES, COLUMNS, KEPT, columns_of
from stages.shards.stage import Shards, ShardsConfig
from tests.pipeline.runs import ROOT
from tests.pipeline.test_planning import plan_of
from tests.stages.tiny_shards import TASKS, given_row

ROWS = [
    {"caption": "a red car", "url": "https://a.example/1.jpg", "licence": "CC0"},
    {"caption": 'a "blue" ball', "url": "https://a.example/2.jpg?a=1,2", "licence": ""},
    {"caption": "a tree", "url": "<script>", "licence": "caf\u00e9"},
]
KEEP = ("url", "licence")
EXPECTED = [{name: row[name] for name in KEEP} for row in ROWS]


def write(folder, suffix):
    path = folder / f"captions{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in ROWS))
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ROWS[0], delimiter="," if suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(ROWS)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv", ".tsv"])
def test_every_format_gives_the_values_of_its_rows(tmp_path, suffix):
    read = read_kept(write(tmp_path, suffix), KEEP)
    assert [json.loads(text) for text in read.to_pylist()] == EXPECTED


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv"])
def test_a_missing_column_is_named(tmp_path, suffix):
    with pytest.raises(UserError, match="no column 'author'"):
        read_kept(write(tmp_path, suffix), ("url", "author"))


def test_numbers_and_other_values_are_kept_as_they_are(tmp_path):
    records = [{"caption": "a", "n": 3, "at": {"x": [1, 2.5]}}, {"caption": "b", "n": None}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    read = [json.loads(text) for text in read_kept(tmp_path / "c.jsonl", ("n", "at")).to_pylist()]
    assert read == [{"n": 3, "at": {"x": [1, 2.5]}}, {"n": None, "at": None}]


def test_values_without_bound_are_refused(tmp_path):
    (tmp_path / "c.jsonl").write_text(json.dumps({"caption": "a", "page": "x" * LONGEST}) + "\n")
    with pytest.raises(UserError, match=r"captions\.keep: .*row 1 has"):
        read_kept(tmp_path / "c.jsonl", ("page",))


def test_the_plan_has_the_values_of_each_row(make_run, tmp_path):
    path = write(tmp_path, ".jsonl")
    run = make_run("kept")
    keys = [f"captions={{file: {path}, column: caption, keep: [url, licence]}}", "repeats=2"]
    plan, rows = plan_of(run, *keys)
    assert plan.settings["captions.keep"] == ["url", "licence"]
    assert [json.loads(row["kept_columns"]) for row in rows] == [EXPECTED[row["row"]] for row in rows]
    assert len(rows) == 6


def test_a_run_without_the_key_has_no_such_column(run):
    plan, rows = plan_of(run)
    assert "kept_columns" not in rows[0]
    assert "captions.keep" not in plan.settings


def shards_of(*overrides):
    return chain_of(read_manifest(ROOT / "manifests" / "toybox.yaml", overrides, STAGES))["shards"]


def test_the_shards_stage_publishes_them_only_where_they_are_kept():
    assert shards_of().stage is Shards
    kept = shards_of("captions.keep=[url]")
    assert kept.stage is Shards.beside([KEPT])
    assert kept.reads["plan"] == ["task", "seed", "kept_columns"]
    assert kept.stage.schema.names == [*Shards.schema.names, "kept_columns"]
    assert list(columns_of({KEPT})) == [*COLUMNS, "kept_columns"]
    assert Shards.beside(["judge", "measure", KEPT]).schema.names[-1] == "kept_columns"


def test_sessions_are_refused():
    with pytest.raises(UserError, match=r"captions\.keep: the turns of a session"):
        shards_of("captions.keep=[url]", "turns=2")


def test_a_published_row_has_its_values():
    stage = Shards.beside([KEPT])(ShardsConfig(), TASKS)
    kept = json.dumps({"url": "https://a.example/1.jpg"})
    rows = [given_row("remove", 0, kept_columns=kept), given_row("add", 1, kept_columns=None)]
    published = stage(pa.Table.from_pylist(rows)).to_pylist()
    assert [row["kept_columns"] for row in published] == [kept, None]


@pytest.mark.parametrize("others", CHOICES)
def test_validate_knows_the_columns_of_every_choice_of_optional_parts(others, tmp_path):
    stage = Shards.beside(others)
    empty = pa.schema([pa.field("id", pa.string()), *stage.schema]).empty_table()
    pq.write_table(empty, tmp_path / "train-00000-of-00001.parquet")
    assert not validate(tmp_path, None).wrong["schema"]
    pq.write_table(empty.drop_columns(["seed"]), tmp_path / "train-00000-of-00001.parquet")
    assert validate(tmp_path, None).wrong["schema"]
