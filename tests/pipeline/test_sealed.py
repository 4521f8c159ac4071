"""Files of which every byte is under a checksum."""

import hashlib
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store import sealed
from pipeline.store.sealed import DamagedFileError, Place, check_digest, read_metadata, read_tables
from pipeline.store.sealed_writer import SealedWriter

FORGED = '"seal": "' + "0" * 32 + '"'
TABLE = pa.table({"id": ["a", FORGED, "c"], "picture": [b"1" * 300, b"2" * 300, None]})
PLACE = Place("run", "stage", 3)


def write(path, *tables):
    with SealedWriter(path, TABLE.schema) as writer:
        for table in tables:
            writer.write(table)
        return writer.commit(PLACE, {"more": FORGED})


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "file"
    write(path, TABLE, TABLE.slice(1))
    return path.read_bytes()


def test_what_is_written_is_read_and_whole(tmp_path):
    digest = write(tmp_path / "p", TABLE)
    content, footer = read_metadata(tmp_path / "p", PLACE)
    assert (content["more"], content["digest"], footer.num_rows) == (FORGED, digest, 3)
    raw = (tmp_path / "p").read_bytes()
    assert check_digest(tmp_path / "p", PLACE) == hashlib.sha256(raw).hexdigest()
    footer_bytes = int.from_bytes(raw[-8:-4], "little") + 8
    assert hashlib.blake2b(raw[:-footer_bytes], digest_size=16).hexdigest() == digest
    assert sealed.read_table(tmp_path / "p").equals(TABLE)


def test_each_table_is_a_row_group_and_two_writes_are_equal(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, TABLE, TABLE.slice(0, 0), TABLE.slice(1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    groups = pq.read_metadata(tmp_path / "a")
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [3, 2]


def test_no_row_group_is_larger_than_arrow_can_read(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.store.sealed_writer.MAX_GROUP_BYTES", 1000)
    sizes = [10, 900, 20, 2000, 400, 400, 400, 1]
    table = pa.table({"id": [str(i) for i in range(8)], "picture": [b"x" * size for size in sizes]})
    write(tmp_path / "p", table)
    groups = pq.ParquetFile(tmp_path / "p")
    read = [groups.read_row_group(i) for i in range(groups.num_row_groups)]
    assert all(group.num_rows == 1 or group.nbytes <= 1000 for group in read)
    assert len(read) < 8
    assert pa.concat_tables(read).equals(table)
    assert sealed.read_table(tmp_path / "p").equals(table)


def test_a_file_without_rows_is_a_file(tmp_path):
    write(tmp_path / "p")
    assert pq.read_table(tmp_path / "p").num_rows == 0
    assert [table.num_rows for table in read_tables(tmp_path / "p", ["id"], 2)] == [0]


def test_nothing_is_left_without_a_commit(tmp_path):
    write(tmp_path / "p", TABLE)
    before = (tmp_path / "p").read_bytes()
    with SealedWriter(tmp_path / "p", TABLE.schema) as writer:
        writer.write(TABLE)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert (tmp_path / "p").read_bytes() == before


@given(data=st.data())
def test_any_flipped_bit_is_noticed(data, content, tmp_path_factory):
    path = tmp_path_factory.mktemp("flip") / "file"
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    with pytest.raises(DamagedFileError):
        check_digest(path, PLACE)


def test_what_is_read_is_what_was_written_or_an_error(content, tmp_path):
    """Pages have checksums and row groups have counts, so that a stage does not read on from damaged rows."""
    footer = int.from_bytes(content[-8:-4], "little") + 8
    for bit in range(0, 8 * (len(content) - footer), 4):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "file").write_bytes(changed)
        with suppress(DamagedFileError):
            assert sealed.read_table(tmp_path / "file").equals(pa.concat_tables([TABLE, TABLE.slice(1)])), bit
        with suppress(DamagedFileError), sealed.opened(tmp_path / "file") as file:
            assert file.read_row_group(0).equals(TABLE), bit
            assert file.read_row_group(1).equals(TABLE.slice(1)), bit


def test_missing_unreadable_and_wrong_columns_are_told_apart(tmp_path):
    write(tmp_path / "p", TABLE)
    with pytest.raises(DamagedFileError, match="p cannot be believed"):
        list(read_tables(tmp_path / "p", ["nosuch"], 2))
    with pytest.raises(FileNotFoundError):
        list(read_tables(tmp_path / "none", None, 2))
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "none", PLACE)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read_metadata(tmp_path, PLACE)


def test_an_earlier_versions_file_says_so(tmp_path):
    pq.write_table(TABLE.slice(0, 1), tmp_path / "old")
    with pytest.raises(DamagedFileError, match="no seal: another program wrote it, or an earlier editpairs"):
        read_metadata(tmp_path / "old", PLACE)
