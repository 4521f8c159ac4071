import hashlib
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from pipeline.parts import PartWriter, digest_of_inputs, footer_content, read_footer

TABLE = pa.table({"id": ["a", "b", "c"], "picture": [b"1" * 2000, b"2" * 2000, None]})
COUNTS = Counter({("remove", "kept", ""): 2, ("add", "failed", "E: x"): 1})


def write(path, tables=(TABLE,)):
    with PartWriter(path, TABLE.schema) as writer:
        for table in tables:
            writer.write(table)
        return writer.commit(footer_content("f1", {"plan": "d0"}, COUNTS))


def test_footer_is_read_back(tmp_path):
    path = tmp_path / "stage" / "00000.parquet"
    digest = write(path)
    footer = read_footer(path)
    assert (footer.fingerprint, footer.digest) == ("f1", digest)
    assert footer.inputs == digest_of_inputs({"plan": "d0"})
    assert footer.counts == COUNTS
    assert footer.total("kept") == 2
    assert pq.read_table(path).equals(TABLE)


def test_digest_is_of_every_byte_before_the_footer(tmp_path):
    path = tmp_path / "p.parquet"
    digest = write(path, [TABLE, TABLE.slice(1)])
    content = path.read_bytes()
    footer_bytes = int.from_bytes(content[-8:-4], "little") + 8
    assert hashlib.blake2b(content[:-footer_bytes], digest_size=16).hexdigest() == digest


def test_each_table_is_a_row_group_and_two_writes_are_equal(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, [TABLE, TABLE.slice(0, 0), TABLE.slice(1)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    groups = pq.read_metadata(tmp_path / "a")
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [3, 2]


def test_file_without_rows_is_a_file(tmp_path):
    write(tmp_path / "p", [])
    assert pq.read_table(tmp_path / "p").num_rows == 0
    assert read_footer(tmp_path / "p") is not None


def test_nothing_is_left_without_a_commit(tmp_path):
    write(tmp_path / "p")
    before = (tmp_path / "p").read_bytes()
    with PartWriter(tmp_path / "p", TABLE.schema) as writer:
        writer.write(TABLE)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert (tmp_path / "p").read_bytes() == before


def test_missing_and_foreign_files_are_not_done(tmp_path):
    assert read_footer(tmp_path / "none") is None
    pq.write_table(TABLE, tmp_path / "foreign")
    assert read_footer(tmp_path / "foreign") is None
    pq.write_table(TABLE.replace_schema_metadata({"editpairs": "[1]"}), tmp_path / "other")
    assert read_footer(tmp_path / "other") is None
    pq.write_table(TABLE.replace_schema_metadata({"editpairs": "{}"}), tmp_path / "older")
    assert read_footer(tmp_path / "older") is None


@given(st.floats(0, 1, exclude_max=True))
def test_truncated_file_is_not_done(kept):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        assert read_footer(path) is None


def test_the_digest_of_inputs_tells_them_apart_and_not_their_order():
    inputs = {"plan": "d0", "a/00000": "d1"}
    others = [{}, {"plan": "d0"}, {"plan": "d1", "a/00000": "d0"}, {"plan": "d0', 'a/00000', 'd1"}]
    assert digest_of_inputs(dict(reversed(inputs.items()))) == digest_of_inputs(inputs)
    assert len({digest_of_inputs(each) for each in [inputs, *others]}) == 5
