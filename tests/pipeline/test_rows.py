import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(
    latest=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    unread=st.sets(st.integers(0, 11)),
    batch=st.integers(1, 5),
    group=st.integers(1, 5),
)
def test_columns_that_were_written_again_are_those_of_the_last_file_that_has_the_row(
    latest, unread, batch, group
):
    """Row i was written again in the files 1 .. latest[i]."""
    ids = [f"r{i}" for i in range(len(latest))]
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, name) for name in ("plan", "a", "a1", "a2")}
        pq.write_table(pa.table({"id": ids, "seed": range(len(ids)), "task": ids}), paths["plan"])
        for version, name in enumerate(("a", "a1", "a2")):
            there = [i for i, last in enumerate(latest) if last >= version]
            values = {"x": [f"{i}.{version}" for i in there], "seed": [100 * version + i for i in there]}
            schema = pa.schema([("id", pa.string()), ("x", pa.string()), ("seed", pa.int64())])
            table = pa.table({"id": [ids[i] for i in there], **values}, schema=schema)
            with pq.ParquetWriter(paths[name], table.schema) as writer:
                for start in range(0, max(1, len(there)), group):
                    writer.write_table(table.slice(start, group))
        wanted = [i for i in range(len(ids)) if i not in unread]
        reads = {"plan": ["seed", "task"], "a": ["x"]}
        later = {"plan": (("seed",), ("a1", "a2")), "a": (("x",), ("a1", "a2"))}
        tables = read_rows(
            paths["plan"], 0, paths, reads, {}, pa.array([ids[i] for i in wanted], pa.string()), batch, later
        )
        assert [row for table in tables for row in table.to_pylist()] == [
            {"id": ids[i], "task": ids[i], "seed": 100 * latest[i] + i, "x": f"{i}.{latest[i]}"}
            for i in wanted
        ]
