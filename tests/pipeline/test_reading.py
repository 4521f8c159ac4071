"""Shards of others: ``inspect`` shows pairs of them, or says in one message what is wrong."""

from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.views.contact_sheet import draw
from pipeline.views.pairs import read_pairs
from tests.stages.tiny_shards import TASKS, given_row, published, write_shards


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), [[given_row(task) for task in TASKS]])[0]


def look_at(path) -> None:
    """All that ``inspect`` does: it ends well or with a message, and with nothing else."""
    with suppress(UserError):
        read_pairs(path, 12, 0, "remove")
        draw(read_pairs(path, 12, 0))


@settings(max_examples=150)
@given(st.data())
def test_any_damage_is_a_message(shard, tmp_path_factory, data):
    content = bytearray(shard.read_bytes())
    half = st.booleans()
    for _ in range(data.draw(st.integers(1, 3))):
        # half of them in the footer, where the lengths and types are
        low = len(content) - 6000 if data.draw(half) else 0
        content[data.draw(st.integers(low, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    path.write_bytes(bytes(content[:end]))
    look_at(path)


def changed(column: str, values) -> pa.Table:
    table = published([given_row(task) for task in TASKS])
    at = table.schema.get_field_index(column)
    return table.set_column(at, column, values(table[column]))


OTHERS = {
    "no column": published([given_row("add")]).drop_columns(["Tar"]),
    "another type": changed("I", lambda column: pa.array(["x"] * len(column))),
    "a number for a text": changed("T", lambda column: pa.array(range(len(column)))),
    "no rows": published([given_row("add")]).slice(0, 0),
    "another table": pa.table({"x": [1]}),
    "no picture": changed("I", lambda column: pa.nulls(len(column), column.type)),
    "no bytes": changed(
        "mask", lambda c: pa.array([{"bytes": None, "path": "/etc/passwd"}] * len(c), c.type)
    ),
    "no texts": changed("T", lambda column: pa.nulls(len(column), column.type)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_table_is_a_message(name, tmp_path):
    pq.write_table(OTHERS[name], tmp_path / "other.parquet")
    look_at(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1PAR1", b"\0" * 1000, b"PAR1" + b"\xff" * 40 + b"PAR1"]
)
def test_no_parquet_is_a_message(content, tmp_path):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        read_pairs(tmp_path / "x.parquet", 12, 0)


def test_a_small_file_of_millions_of_rows_is_not_read(tmp_path):
    """They cost nothing to write, being equal, and gigabytes to read."""
    schema = published([given_row("remove")]).schema
    schema = pa.schema([field.with_nullable(True) for field in schema])
    rows = pa.table([pa.nulls(3_000_000, field.type) for field in schema], schema)
    pq.write_table(rows, tmp_path / "many.parquet")
    with pytest.raises(UserError, match="3000000 rows"):
        read_pairs(tmp_path / "many.parquet", 12, 0)
