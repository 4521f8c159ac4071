import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.store.rows import read_rows


@pytest.fixture
def files(tmp_path):
    """A plan part of ten rows, and two stages that saw ten and eight of them."""
    ids = [f"r{i}" for i in range(10)]
    pq.write_table(pa.table({"id": ids, "caption": [f"c{i}" for i in range(10)]}), tmp_path / "plan")
    with pq.ParquetWriter(tmp_path / "a", pa.schema([("id", pa.string()), ("x", pa.int32())])) as writer:
        for start in range(0, 10, 3):
            numbers = pa.array(range(10)[start : start + 3], pa.int32())
            writer.write_table(pa.table({"id": ids[start : start + 3], "x": numbers}))
    pq.write_table(pa.table({"id": ids[2:], "y": [[i] for i in range(2, 10)], "z": [0] * 8}), tmp_path / "b")
    return tmp_path


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 50])
def test_rows_are_joined_by_id_and_cut_in_order(files, batch):
    wanted = pa.array(["r2", "r3", "r5", "r8", "r9"])
    reads = {"plan": ["caption"], "a": ["x"], "b": ["y"]}
    tables = list(
        read_rows(files / "plan", 0, {"a": files / "a", "b": files / "b"}, reads, {}, wanted, batch)
    )
    assert [table.num_rows for table in tables[:-1]] == [batch] * (len(tables) - 1)
    rows = [row for table in tables for row in table.to_pylist()]
    assert rows == [{"id": f"r{i}", "caption": f"c{i}", "x": i, "y": [i]} for i in (2, 3, 5, 8, 9)]


def test_no_row_wanted_is_no_table(files):
    assert list(read_rows(files / "plan", 0, {}, {"plan": []}, {}, pa.array([], pa.string()), 4)) == []


def test_files_that_lack_a_row_are_an_error(files):
    reads = {"plan": ["caption"], "b": ["y"]}
    with pytest.raises((RuntimeError, ValueError)):
        list(read_rows(files / "plan", 0, {"b": files / "b"}, reads, {}, pa.array(["r0", "r5"]), 4))


def test_what_is_the_same_for_the_run_is_in_every_row(files):
    reads = {"plan": [], "run": ["models"]}
    wanted = pa.array(["r0", "r5"])
    [table] = read_rows(files / "plan", 0, {}, reads, {"models": "{}"}, wanted, 4)
    assert table["models"].to_pylist() == ["{}", "{}"]
