import subprocess
import sys
from collections import Counter

import pytest
from rich.console import Console

from pipeline.views.pairs import pairs_table, read_pairs
from tests.stages.tiny_shards import TASKS, flat, given_row, write_shards

ROWS = [[given_row(task, 10 * shard + k) for k, task in enumerate([*TASKS] * 2)] for shard in range(2)]


@pytest.fixture
def run(tmp_path):
    write_shards(tmp_path / "run" / "shards", ROWS, row_group=3)
    return tmp_path / "run"


def test_a_shard_its_folder_and_its_run_can_be_read(run):
    shard = run / "shards" / "train-00001-of-00002.parquet"
    assert read_pairs(run, 100, 0) == read_pairs(run / "shards", 100, 0)
    assert [pair.id for pair in read_pairs(shard, 100, 0)] == [row["id"] for row in ROWS[1]]
    assert [pair.id for pair in read_pairs(run, 100, 0)] == [row["id"] for part in ROWS for row in part]


def test_a_pair_holds_its_row(run):
    pair = next(pair for pair in read_pairs(run, 100, 0) if pair.task == "add")
    assert (pair.input_png, pair.target_png) == (flat(21), flat(10))
    assert pair.instruction == "add it, number 1"
    assert pair.scores == {"clip_direction": 0.25, "change_inside": 0.5}


def test_pairs_are_drawn_by_seed(run):
    drawn = [tuple(pair.id for pair in read_pairs(run, 5, seed)) for seed in range(40)]
    assert drawn == [tuple(pair.id for pair in read_pairs(run, 5, seed)) for seed in range(40)]
    assert all(len(set(ids)) == 5 for ids in drawn)
    counts = Counter(pair_id for ids in drawn for pair_id in ids)
    assert len(counts) == 16


def test_only_pairs_of_a_task(run):
    assert [pair.task for pair in read_pairs(run, 3, 0, "detect")] == ["detect"] * 3
    assert read_pairs(run, 3, 0, "style") == []


def test_a_folder_without_shards_holds_no_pairs(tmp_path):
    assert read_pairs(tmp_path, 3, 0) == []


def test_the_table_shows_text_as_it_is(tmp_path):
    row = given_row("remove", instruction="[bold red]remove[/] :smile: 猫")
    [path] = write_shards(tmp_path, [[row]])
    console = Console(width=200, record=True)
    console.print(pairs_table(read_pairs(path, 1, 0)))
    assert "[bold red]remove[/] :smile: 猫" in console.export_text()


def test_looking_at_pairs_needs_no_model_packages():
    code = (
        "import sys, pipeline.views.pairs, pipeline.views.contact_sheet;"
        "print([m for m in ('torch', 'ray', 'open_clip', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
