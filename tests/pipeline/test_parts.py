import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.parts import digest_of_inputs, footer_content, read_footer
from pipeline.store.sealed import DamagedFileError, Place
from pipeline.store.sealed_writer import SealedWriter

TABLE = pa.table({"id": ["a", "b", "c"], "picture": [b"1" * 2000, b"2" * 2000, None]})
COUNTS = Counter({("remove", "kept", ""): 2, ("add", "failed", "E: x"): 1})
PLACE = Place("run", "stage", 0)


def write(path, counts=COUNTS):
    with SealedWriter(path, TABLE.schema) as writer:
        writer.write(TABLE)
        return writer.commit(PLACE, footer_content("f1", {"plan": "d0"}, counts))


def test_footer_is_read_back(tmp_path):
    path = tmp_path / "stage" / "00000.parquet"
    digest = write(path)
    footer = read_footer(path, PLACE)
    assert (footer.fingerprint, footer.digest) == ("f1", digest)
    assert footer.inputs == digest_of_inputs({"plan": "d0"})
    assert footer.counts == COUNTS
    assert footer.total("kept") == 2
    assert pq.read_table(path).equals(TABLE)


def test_a_missing_file_is_none_and_foreign_ones_are_not_believed(tmp_path):
    assert read_footer(tmp_path / "none", PLACE) is None
    pq.write_table(TABLE, tmp_path / "foreign")
    pq.write_table(TABLE.replace_schema_metadata({"editpairs": "[1]"}), tmp_path / "other")
    (tmp_path / "empty").write_bytes(b"")
    with SealedWriter(tmp_path / "no part", TABLE.schema) as writer:
        writer.commit(PLACE, {"fingerprint": "f1"})
    for name in ("foreign", "other", "empty", "no part"):
        with pytest.raises(DamagedFileError, match=f"{name} cannot be believed"):
            read_footer(tmp_path / name, PLACE)


@pytest.mark.parametrize(
    "place", [replace(PLACE, run="b"), replace(PLACE, stage="b"), replace(PLACE, unit=1)]
)
def test_a_file_is_not_believed_elsewhere(tmp_path, place):
    write(tmp_path / "p")
    with pytest.raises(DamagedFileError, match="it is a file of") as error:
        read_footer(tmp_path / "p", place)
    assert error.value.other_run == (place.run != PLACE.run)


def test_what_cannot_be_read_is_not_missing(tmp_path):
    for path in (tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(OSError):  # noqa: PT011 - of either kind
            read_footer(path, PLACE)


@pytest.mark.parametrize("counts", [{("a", "keept", ""): 1}, {("a", "kept", ""): -1}])
def test_counts_of_no_status_and_below_zero_are_not_believed(tmp_path, counts):
    write(tmp_path / "p", Counter(counts))
    with pytest.raises(DamagedFileError, match="not one of a part"):
        read_footer(tmp_path / "p", PLACE)


@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_not_believed(kept):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(DamagedFileError):
            read_footer(path, PLACE)


def test_the_digest_of_inputs_tells_them_apart_and_not_their_order():
    inputs = {"plan": "d0", "a/00000": "d1"}
    others = [{}, {"plan": "d0"}, {"plan": "d1", "a/00000": "d0"}, {"plan": "d0', 'a/00000', 'd1"}]
    assert digest_of_inputs(dict(reversed(inputs.items()))) == digest_of_inputs(inputs)
    assert len({digest_of_inputs(each) for each in [inputs, *others]}) == 5
