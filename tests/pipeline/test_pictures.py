"""Pictures of the captions' rows: found by path or in parquet, planned by digest, read as planned or told."""

import csv
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.inputs import pictures as module
from pipeline.inputs.pictures import Pictures

NAMES = ["a.png", "below/b c.png", "a.png", "gone.png", "", "../outside.png", "below/../a.png", "link.png"]
FLAWS = ["", "", "", "picture_missing", "picture_missing", "picture_outside", "picture_outside", ""]
BYTES = {"a.png": b"first", "below/b c.png": b"second", "link.png": b"second"}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    (root / "below").mkdir(parents=True)
    (root / "a.png").write_bytes(b"first")
    (root / "below" / "b c.png").write_bytes(b"second")
    (root / "link.png").symlink_to(root / "below" / "b c.png")
    (tmp_path / "outside.png").write_bytes(b"secret")
    return root


def write(folder: Path, suffix: str, names=NAMES) -> Path:
    path = folder / f"captions{suffix}"
    rows = [{"caption": f"photograph {k}", "image": name} for k, name in enumerate(names)]
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="," if suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    return path


def embed(path: Path, values: list, kind: pa.DataType, group: int = 2) -> Path:
    table = pa.table({"caption": [f"{path.stem} {k}" for k in range(len(values))]})
    pq.write_table(table.append_column("image", pa.array(values, kind)), path, row_group_size=group)
    return path


def planned(pictures: Pictures) -> pa.Table:
    names = pictures.names().to_pylist()
    columns = {"row": list(range(len(names))), "picture": names}
    return pa.table(
        {
            "id": list(map(str, columns["row"])),
            **columns,
            **pictures.described(**{"rows": columns["row"], "names": names}),
        }
    ).cast(
        pa.schema(
            [
                ("id", pa.string()),
                ("row", pa.int64()),
                ("picture", pa.string()),
                ("picture_digest", pa.string()),
                ("picture_flaw", pa.string()),
            ]
        )
    )


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv", ".tsv"])
def test_paths_are_read_from_every_format(folder, suffix):
    pictures = Pictures(write(folder, suffix), "image")
    read = pictures.read(planned(pictures)).to_pydict()
    assert read["picture_flaw"] == FLAWS
    assert read["picture_bytes"] == [
        BYTES.get(n) if not f else None for n, f in zip(NAMES, FLAWS, strict=True)
    ]
    assert set(read) == {"id", "picture_bytes", "picture_flaw"}


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), STRUCT])
def test_bytes_are_read_from_several_parquet_files(folder, kind):
    values = [b"0", b"1", None, b"3", b"4"]
    wrapped = (
        [{"bytes": v, "path": "elsewhere.png"} if v else None for v in values] if kind == STRUCT else values
    )
    embed(folder / "x.parquet", wrapped, kind)
    embed(folder / "y.parquet", wrapped[::-1], kind)
    pictures = Pictures(folder / "*.parquet", "image")
    table = planned(pictures)
    expected = [*values, *values[::-1]]
    assert pictures.read(table)["picture_bytes"].to_pylist() == expected
    order = pa.array([9, 0, 6, 3, 1])
    assert pictures.read(table.take(order))["picture_bytes"].to_pylist() == [
        expected[k] for k in order.to_pylist()
    ]


def test_a_struct_without_bytes_names_a_file(folder):
    rows = [
        {"bytes": None, "path": "a.png"},
        {"bytes": b"own", "path": "a.png"},
        {"bytes": None, "path": "no"},
    ]
    pictures = Pictures(embed(folder / "x.parquet", rows, STRUCT), "image")
    read = pictures.read(planned(pictures))
    assert read["picture_bytes"].to_pylist() == [b"first", b"own", None]
    assert read["picture_flaw"].to_pylist() == ["", "", "picture_missing"]


def test_paths_belong_to_the_folder_of_their_own_file(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "p.png").write_bytes(name.encode())
        write(folder / name, ".csv", ["p.png", "../one/p.png"])
    pictures = Pictures(folder / "*/captions.csv", "image")
    assert pictures.read(planned(pictures))["picture_bytes"].to_pylist() == [b"one", None, b"two", None]


@pytest.mark.parametrize("name", ["/etc/passwd", "out/outside.png", "out.png", "below/../../outside.png"])
def test_no_path_and_no_link_leads_out_of_the_folder(folder, name):
    (folder / "out").symlink_to(folder.parent)
    (folder / "out.png").symlink_to(folder.parent / "outside.png")
    pictures = Pictures(write(folder, ".csv", [name]), "image")
    assert pictures.read(planned(pictures)).to_pylist()[0]["picture_flaw"] == "picture_outside"


@pytest.mark.parametrize("name", ["below", "pipe", "a.png/b", "x" * 999, "nul\0", "loop"])
def test_what_is_no_file_is_a_missing_picture(folder, name):
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    pictures = Pictures(write(folder, ".jsonl", [name]), "image")
    assert pictures.read(planned(pictures)).to_pylist()[0]["picture_flaw"] == "picture_missing"


def test_a_picture_changed_or_lost_after_planning_is_told(folder):
    path = write(folder, ".csv", ["a.png", "below/b c.png", "gone.png"])
    table = planned(Pictures(path, "image"))
    before = (folder / "a.png").stat()
    (folder / "a.png").write_bytes(b"fir5t")
    os.utime(folder / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
    (folder / "below" / "b c.png").unlink()
    (folder / "gone.png").write_bytes(b"late")
    read = Pictures(path, "image").read(table).to_pydict()
    assert read["picture_flaw"] == ["picture_changed", "picture_changed", "picture_missing"]
    assert read["picture_bytes"] == [None] * 3


def test_an_unreadable_picture_is_not_a_missing_one(folder, monkeypatch):
    pictures = Pictures(write(folder, ".csv", ["a.png"]), "image")
    table, opened = planned(pictures), Path.open

    def refuse(path, *given, **keys):
        if path.suffix == ".png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *given, **keys)

    monkeypatch.setattr(Path, "open", refuse)
    for read in (lambda: planned(pictures), lambda: pictures.read(table)):
        with pytest.raises(
            UserError, match=r"captions\.picture: 'a.png' in .* cannot be read: Permission denied"
        ):
            read()


def test_a_large_file_is_read_up_to_a_bound_and_refused(folder, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 5)
    pictures = Pictures(write(folder, ".csv", ["a.png", "below/b c.png"]), "image")
    assert pictures.read(planned(pictures))["picture_flaw"].to_pylist() == ["", "picture_too_large"]
    assert module._read_file(folder, "below/b c.png") == b"second"[:6]
    embedded = Pictures(embed(folder / "x.parquet", [b"12345", b"123456"], pa.binary()), "image")
    assert embedded.read(planned(embedded))["picture_flaw"].to_pylist() == ["", "picture_too_large"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv"])
def test_a_missing_column_is_named(folder, suffix):
    with pytest.raises(UserError, match=r"captions\.picture: .*no column 'photo'; it has .*'image'"):
        Pictures(write(folder, suffix), "photo").names()


def test_a_text_file_and_a_column_of_numbers_are_refused(folder, tmp_path):
    (tmp_path / "captions.txt").write_text("a\n")
    with pytest.raises(UserError, match=r"captions\.picture: .*has no columns"):
        Pictures(tmp_path / "captions.txt", "image").names()
    with pytest.raises(UserError, match=r"captions\.picture: 'image' in .* holds int64"):
        Pictures(embed(folder / "n.parquet", [1, 2], pa.int64()), "image").names()
