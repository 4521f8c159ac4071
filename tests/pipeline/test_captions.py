import bz2
import csv
import gzip
import hashlib
import io
import json
import tempfile
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.inputs.captions import content_hash, read_captions

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


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end_ends_a_caption(tmp_path, end):
    (tmp_path / "c.txt").write_bytes(end.join([b"a cat", b"a dog", b""]))
    assert read_captions(tmp_path / "c.txt", "").to_pylist() == ["a cat", "a dog"]


def test_a_nul_in_a_caption_is_not_taken_for_utf_16(tmp_path):
    (tmp_path / "c.txt").write_bytes(b"a\0cat\nb\n")
    assert read_captions(tmp_path / "c.txt", "").to_pylist() == ["a\0cat", "b"]


def test_a_link_to_nowhere_or_to_itself_is_not_a_missing_file(tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "b.txt").symlink_to(tmp_path / "b.txt")
    for path in (tmp_path / "b.txt", tmp_path, tmp_path / "*.txt", tmp_path / "a.txt" / "c.txt"):
        with pytest.raises(UserError, match=r"txt cannot be read: (Too many|Not a dir)"):
            read_captions(path, "")
    (tmp_path / "b.txt").unlink()
    (tmp_path / "b.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"b\.txt cannot be read: No such file"):
        read_captions(tmp_path, "")


lines = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"))


@given(st.lists(lines, min_size=1).filter(lambda captions: any(c.strip("\ufeff").strip() for c in captions)))
def test_text_lines_survive(captions):
    expected = [captions[0].removeprefix("\ufeff"), *captions[1:]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.txt"
        path.write_bytes("".join(f"{c}\n" for c in captions).encode())
        assert read_captions(path, "caption").to_pylist() == expected


MANY = "".join(f"row {i}\n" for i in range(50_000))
QUOTE = r"a quote in the row that begins in line 3 is not closed"
DAMAGED = {
    "open.csv": ('caption\na\n"b\n' + MANY, QUOTE),
    "two-open.csv": ('caption\na\n"b\n' + MANY + '"c\nd\n', QUOTE),
    "last-open.csv": ('caption\na\n"b\n', QUOTE),
    "last-open-without-end.csv": ('caption\na\n"b', QUOTE),
    "even-quotes.csv": ('caption\n5" nail\n"b\n', QUOTE),
    "returns.csv": ('caption\ra\r"b\rc\r', QUOTE),
    "open.tsv": ('n\tcaption\n1\ta, b\n2\t"c\n3\td\n', QUOTE),
    "after-quote.csv": ('caption\na\n"b\nc"d\n', QUOTE),
    "ragged.csv": ("n,caption\n1,a\n2,b,c\n", "line 3 has 3 columns, the header has 2"),
    "short.csv": ("n,caption\n1,a\n2\n", "line 3 has 1 columns, the header has 2"),
    "latin.csv": (b"caption\na\ncaf\xe9\n", "line 3 is not UTF-8"),
    "latin-header.csv": (b"caf\xe9\na\n", "line 1 is not UTF-8"),
    "twice.csv": ("caption,caption\na,b\n", "several columns 'caption'"),
    "header.csv": ("caption\n", "holds no captions"),
    "blank.txt": ("\n \n\t\n", "all 3 captions in .* are empty"),
    "blank.csv": ("n,caption\n1,\n2,\n", "all 2 captions in .* are empty"),
    "middle.jsonl": ('{"caption": "a"}\n{"caption": \n{"caption": "b"}\n', "line 2 is not valid JSON"),
    "number.jsonl": ('{"caption": "a"}\n\n{"caption": 3}\n', "'caption' in .* holds a number in line 3"),
    "list.jsonl": ('{"caption": "a"}\n{"caption": ["b"]}\n', "'caption' in .* holds a list in line 2"),
    "truth.jsonl": ('{"caption": true}\n', "'caption' in .* holds a truth value in line 1"),
    "latin.jsonl": (b'{"caption": "a"}\n{"caption": "caf\xe9"}\n', "line 2 is not UTF-8"),
    "latin-first.jsonl": (b'{"x": "caf\xe9", "caption": "a"}\n', "line 1 is not UTF-8"),
    "surrogate.jsonl": ('{"caption": "a"}\n{"caption": "\\ud800"}\n', "line 2 has half of a surrogate"),
    "twice.jsonl": ('{"caption": "a"}\n{"caption": "b", "caption": "c"}\n', "line 2 .* occurs twice"),
    "array.jsonl": ("[1]\n", r"line 1 is not a JSON object.*\.json"),
    "text.jsonl": ('"caption"\n', "line 1 is not a JSON object"),
    "deep.jsonl": ('{"caption": "a", "x": ' + "[" * 100_000 + "\n", "line 1 is nested too deeply"),
    "empty.jsonl": ("", "holds no captions"),
    "deep.json": ("[" * 100_000, "nested too deeply"),
    "cut.json": ('[{"caption": "a"},', "not valid JSON.*line 1 column 19"),
    "number.json": ('[{"caption": "a"}, {"caption": 3}]', "holds a number in record 2"),
    "object.json": ('[{"caption": "a"}, 3]', "record 2 is not a JSON object"),
    "other.json": ('[{"text": "a"}]', "no column 'caption'; it has 'text'"),
    "cut.csv.gz": (gzip.compress(MANY.encode())[:500], "cannot be read: Truncated"),
    "plain.csv.gz": ("caption\na\n", "cannot be read"),
    "a.parquet.gz": (b"", "has an unknown format"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_message_that_names_the_place(tmp_path, name):
    content, message = DAMAGED[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        read_captions(path, "caption")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl", "a.json"])
def test_other_encodings_are_named(tmp_path, name, encoding):
    (tmp_path / name).write_bytes('[{"caption": "a"}]\ncaption'.encode(encoding))
    with pytest.raises(UserError, match=f"(?i)is {encoding[:6]}.*: save it as UTF-8, such as with iconv"):
        read_captions(tmp_path / name, "caption")


READ = {
    "a.csv": "\ufeffn,caption\r\n1,a\r\n\r\n2,b\r\n",
    "b.csv": "caption\na\nb",
    "c.csv": 'caption,n\r"a",1\r"b",2\r',
    "a.tsv": "\ufeffn\tcaption\n1\ta\n2\tb\n",
    "a.txt": "\ufeffa\r\nb",
    "a.jsonl": '\ufeff{"caption": "a"}\n\n{"caption": "b", "n": NaN}',
    "a.ndjson": '{"n": 1, "caption": "a"}\n{"caption": "b"}\n',
    "a.json": '\ufeff [{"caption": "a"},\n {"caption": "b", "n": 1}]',
    "lines.json": '{"caption": "a"}\n{"caption": "b"}\n',
}
COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("ending", COMPRESS)
def test_what_pandas_users_have_is_read(tmp_path, name, ending):
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(COMPRESS[ending](READ[name].encode()))
    assert read_captions(path, "caption").to_pylist() == ["a", "b"]


def test_several_gzip_members_are_one_file(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert read_captions(tmp_path / "a.txt.gz", "").to_pylist() == ["a", "b"]


fields = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8) | st.text(
    '",\n\r a', max_size=8
)


@given(
    st.lists(st.tuples(fields, fields), min_size=1),
    st.sampled_from([",", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_csv_writes_is_read_and_never_half_of_it(rows, delimiter, end):
    rows = [("first", "first"), *rows]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("n", "caption"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.csv" if delimiter == "," else "a.tsv")
        path.write_bytes(file.getvalue().encode())
        assert read_captions(path, "caption").to_pylist() == [caption for _, caption in rows]


@given(st.lists(st.text('ab" ', max_size=4), min_size=1, max_size=6))
def test_a_csv_of_stray_quotes_has_a_row_a_line_or_is_refused(texts):
    """Quotes that nobody closed cannot merge rows, unless they also pair up."""
    content = "caption\nfirst\n" + "".join(f"{text}\n" for text in texts)
    expected = sum(1 for _ in csv.reader(io.StringIO(content), strict=False)) - 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text(content)
        try:
            found = read_captions(path, "caption")
        except UserError:
            assert '"' in content
        else:
            assert len(found) == expected


def parquet(path, column, **options):
    pq.write_table(pa.table({"caption": column}), path, **options)
    return path


def invalid(texts):
    binary = pa.array(texts, pa.binary())
    return pa.StringArray.from_buffers(len(binary), binary.buffers()[1], binary.buffers()[2])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (invalid([b"a", b"b", b"\xff", b"c"]), r"the caption of row 2 \(from 0\) is not UTF-8"),
        (pa.chunked_array([["a"] * 70_000, invalid([b"a", b"\xff"])]), "the caption of row 70001"),
        (pa.array([{"a": "b"}]), r"holds struct<a: string>, not text"),
        (pa.array([["a"]]), r"holds list<.*>, not text"),
        (pa.array([b"a"]), "holds binary, not text"),
        (pa.nulls(2), "holds null, not text"),
        (pa.array([None, None], pa.string()), "all 2 captions in .* are empty"),
        (pa.array([], pa.string()), "holds no captions"),
    ],
)
def test_a_parquet_column_that_is_no_text(tmp_path, column, message):
    with pytest.raises(UserError, match=message):
        read_captions(parquet(tmp_path / "a.parquet", column), "caption")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_kind_of_text_is_text(tmp_path, kind):
    path = parquet(tmp_path / "a.parquet", pa.array(["a", "b", "a"]).cast(kind))
    assert read_captions(path, "caption").to_pylist() == ["a", "b", "a"]


def test_parquet_columns_are_named_as_they_are(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"meta": [{"caption": "x"}], "a.b": ["y"]}), path)
    assert read_captions(path, "a.b").to_pylist() == ["y"]
    with pytest.raises(UserError, match=r"no column 'meta\.caption'; it has 'meta', 'a\.b'"):
        read_captions(path, "meta.caption")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, ["caption"] * 2), path)
    with pytest.raises(UserError, match="several columns 'caption'"):
        read_captions(path, "caption")


def test_any_damage_to_a_parquet_file_is_a_message(tmp_path):
    whole = parquet(tmp_path / "whole.parquet", pa.array([f"caption {i}" for i in range(50)])).read_bytes()
    path = tmp_path / "a.parquet"
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with suppress(UserError):
            read_captions(path, "caption")


def test_a_folder_and_a_pattern_are_their_files_by_name(tmp_path):
    tmp_path = tmp_path / "of" / "captions"
    tmp_path.mkdir(parents=True)
    for name in "cab":
        (tmp_path / f"{name}.csv").write_text(f"caption\n{name}\n")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"caption\nd\n"))
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / ".hidden.txt").write_text("x")
    assert read_captions(tmp_path, "caption").to_pylist() == ["a", "b", "c", "d"]
    assert read_captions(tmp_path / "[ab].csv", "caption").to_pylist() == ["a", "b"]
    assert read_captions(tmp_path.parent / "**" / "?.csv", "caption").to_pylist() == ["a", "b", "c"]
    (tmp_path / "e.txt").write_text("e\n")
    with pytest.raises(UserError, match=r"several formats, such as a\.csv and e\.txt: name those of one"):
        read_captions(tmp_path, "caption")
    with pytest.raises(UserError, match=r"README\.md has an unknown format"):
        read_captions(tmp_path / "*", "caption")
    with pytest.raises(UserError, match=r"there is no file .*nothing"):
        read_captions(tmp_path / "nothing*.csv", "caption")


def test_a_file_of_a_folder_that_lacks_the_column_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("caption\na\n")
    (tmp_path / "b.csv").write_text("text\nb\n")
    with pytest.raises(UserError, match=r"b\.csv has no column 'caption'"):
        read_captions(tmp_path, "caption")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("a\n")
    assert read_captions(tmp_path / "a[1].txt", "").to_pylist() == ["a"]


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"the folder .* holds no files of captions"):
        read_captions(tmp_path, "caption")


def test_the_hash_of_a_file_is_that_of_its_bytes_as_ever(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\nb\n")
    assert content_hash(tmp_path / "a.txt") == hashlib.blake2b(b"a\nb\n", digest_size=16).hexdigest()


def test_the_hash_of_a_folder_is_of_names_order_and_bytes_and_not_of_where_it_lies(tmp_path):
    hashes = set()
    for folder, files in {
        "one": {"a": "x\n", "b": "y\n"},
        "names": {"a": "x\n", "c": "y\n"},
        "order": {"a": "y\n", "b": "x\n"},
        "bounds": {"a": "x\ny", "b": "\n"},
        "more": {"a": "x\n", "b": "y\n", "c": "z\n"},
    }.items():
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / f"{name}.txt").write_text(text)
        hashes.add(content_hash(tmp_path / folder))
    assert len(hashes) == 5
    moved = (tmp_path / "one").rename(tmp_path / "moved")
    assert content_hash(moved) in hashes
    assert content_hash(moved / "*.txt") == content_hash(moved)
