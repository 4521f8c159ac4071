import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captions import read_captions
from pipeline.errors import UserError

AWKWARD = ["a red cube", "", "  ", "x" * 100_000, "tab\tbell\x07 nul\x00", "line\u2028sep\x1c", "emoji 🎈"]


def write(folder, suffix, captions):
    path = folder / f"captions{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"caption": captions, "n": range(len(captions))}), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"n": 1, "caption": c}) + "\n" for c in captions))
    elif suffix == ".csv":
        quoted = ['"' + c.replace('"', '""') + '"' for c in captions]
        path.write_text("n,caption\n" + "".join(f"1,{c}\n" for c in quoted))
    else:
        path.write_text("".join(f"{c}\n" for c in captions))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ".txt"])
def test_awkward_captions_are_rows_like_any_other(tmp_path, suffix):
    assert read_captions(write(tmp_path, suffix, AWKWARD), "caption").to_pylist() == AWKWARD


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_null_is_the_empty_caption(tmp_path, suffix):
    path = write(tmp_path, suffix, ["a", None])
    assert read_captions(path, "caption").to_pylist() == ["a", ""]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_missing_column_lists_those_that_are_there(tmp_path, suffix):
    with pytest.raises(UserError, match=r"captions\.column: .*no column 'text'; it has .*'caption'"):
        read_captions(write(tmp_path, suffix, ["a"]), "text")


def test_column_that_is_not_text(tmp_path):
    with pytest.raises(UserError, match=r"'n' in .* holds int64, not text"):
        read_captions(write(tmp_path, ".parquet", ["a"]), "n")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.txt", None),
        ("empty.txt", b""),
        ("empty.csv", b""),
        ("image.png", b"x"),
        ("cut.parquet", b"PAR1 nothing"),
        ("list.jsonl", b"[1\n"),
        ("later.jsonl", b'{"caption": "a"}\n{"caption": \n'),
    ],
)
def test_unreadable_file_is_a_message_with_its_key(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"captions\.file") as error:
        read_captions(path, "caption")
    assert name in str(error.value)


def test_text_with_bytes_that_are_not_utf8_is_read(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes(b"\xef\xbb\xbfcaf\xe9\r\nb")
    assert read_captions(path, "caption").to_pylist() == ["caf\ufffd", "b"]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), min_size=1))
def test_text_lines_survive(captions):
    expected = [captions[0].removeprefix("\ufeff"), *captions[1:]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.txt"
        path.write_bytes("".join(f"{c}\n" for c in captions).encode())
        assert read_captions(path, "caption").to_pylist() == expected
