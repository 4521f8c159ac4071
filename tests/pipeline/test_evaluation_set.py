"""Evaluation sets: their columns are recognized, big files are streamed, and wrong files are named."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.audit.evaluation_set import open_sets, read_set
from pipeline.errors import UserError
from stages.pictures.png import encode_png

PNG = encode_png(np.zeros((8, 8, 3), np.uint8))
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PICTURE = {"bytes": PNG, "path": "a.png"}
TEXT, NUMBER = pa.string(), pa.int64()
KNOWN = {
    "emu": (
        {"instruction": TEXT, "image": IMAGE, "task": TEXT, "split": TEXT, "idx": NUMBER, "hash": TEXT}
        | {"input_caption": TEXT, "output_caption": TEXT},
        ["input_caption", "output_caption"],
        ["image"],
    ),
    "magicbrush": (
        {
            "img_id": TEXT,
            "turn_index": pa.int32(),
            "source_img": IMAGE,
            "mask_img": IMAGE,
            "instruction": TEXT,
        }
        | {"target_img": IMAGE},
        [],
        ["source_img", "target_img"],
    ),
    "gedit": (
        {"key": TEXT, "task_type": TEXT, "instruction_language": TEXT, "instruction": TEXT}
        | {"input_image": IMAGE, "input_image_raw": IMAGE, "Intersection_exist": pa.bool_()},
        [],
        ["input_image", "input_image_raw"],
    ),
    "instructpix2pix": (
        {"original_prompt": TEXT, "edit_prompt": TEXT, "edited_prompt": TEXT}
        | {"original_image": IMAGE, "edited_image": IMAGE},
        ["original_prompt", "edited_prompt"],
        ["original_image", "edited_image"],
    ),
    "bytes": (
        {"caption": pa.large_string(), "jpg": pa.large_binary(), "embedding": pa.binary()},
        ["caption"],
        ["jpg"],
    ),
    "lists": ({"captions": pa.list_(TEXT), "png": pa.binary()}, ["captions"], ["png"]),
}


def value(name: str, kind: pa.DataType):
    if kind == IMAGE:
        return PICTURE
    if name in ("jpg", "png"):
        return PNG
    if pa.types.is_list(kind):
        return ["a cat", None, ""]
    return {"embedding": b"\x00\x01"}.get(name, None if pa.types.is_integer(kind) else "a cat")


def write(path: Path, columns: dict[str, pa.DataType], rows: int = 3, **options) -> Path:
    made = {
        name: pa.array([None if pa.types.is_boolean(kind) else value(name, kind)] * rows, kind)
        for name, kind in columns.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(made), path, **options)
    return path


@pytest.mark.parametrize("name", KNOWN)
def test_captions_and_pictures_of_known_sets_are_recognized(tmp_path, name):
    columns, captions, pictures = KNOWN[name]
    [found] = open_sets([str(write(tmp_path / f"{name}.parquet", columns))])
    assert (found.name, found.rows) == (name, 3)
    assert (sorted(found.captions), list(found.pictures)) == (sorted(captions), pictures)
    first, *_ = rows = list(read_set(found))
    assert [row.number for row in rows] == [0, 1, 2]
    assert first.pictures == (PNG,) * len(pictures)
    assert set(first.captions) <= {"a cat"}
    assert len(first.captions) == len(captions)


def test_a_folder_is_one_set_of_several_files(tmp_path):
    columns = KNOWN["emu"][0]
    for split, rows in (("test", 2), ("validation", 3)):
        write(tmp_path / "emu" / "data" / f"{split}-00000.parquet", columns, rows)
    write(tmp_path / "emu" / ".cache.parquet", {"x": NUMBER})
    [found] = open_sets([str(tmp_path / "emu")])
    assert (found.name, found.rows) == ("emu", 5)
    assert [(row.file, row.number) for row in read_set(found)] == [
        *(("test-00000.parquet", k) for k in range(2)),
        *(("validation-00000.parquet", k) for k in range(3)),
    ]


def test_a_folder_s_folders_belong_to_it_and_what_is_hidden_or_a_link_to_a_folder_does_not(tmp_path):
    for name in ("data/train-0.parquet", "data/b/train-1.parquet", ".cache/x.parquet", "data/.x.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"caption": [name]}), tmp_path / name)
    (tmp_path / "data" / "again").symlink_to(tmp_path)
    (found,) = open_sets([str(tmp_path)])
    assert [row.captions for row in read_set(found)] == [
        ("data/b/train-1.parquet",),
        ("data/train-0.parquet",),
    ]


def test_pictures_that_are_missing_are_told_and_a_path_is_never_opened(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    pictures = [PICTURE, None, {"bytes": None, "path": str(secret)}]
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": pa.array(pictures, IMAGE)}), path)
    [found] = open_sets([str(path)])
    assert [row.pictures for row in read_set(found)] == [(PNG,), (None,), (None,)]


def test_a_file_much_larger_than_its_batches_is_streamed(tmp_path):
    rng = np.random.default_rng(0)
    large = [{"bytes": PNG + rng.bytes(200_000), "path": ""} for _ in range(600)]
    path = tmp_path / "large.parquet"
    pq.write_table(
        pa.table({"image": pa.array(large, IMAGE)}), path, row_group_size=50, data_page_size=1 << 16
    )
    del large
    [found] = open_sets([str(path)])
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    seen = most = 0
    for row in read_set(found):
        seen += len(row.pictures)
        most = max(most, pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert seen == 600
    assert most < 60e6, "120 MB in all"


def of_masks(folder: Path) -> Path:
    return write(folder / "masks.parquet", {"x": TEXT, "mask_img": IMAGE})


def of_text(folder: Path) -> Path:
    (folder / "text.parquet").write_bytes(b"PAR1 is how it begins")
    return folder / "text.parquet"


def damaged(folder: Path) -> Path:
    path = folder / "damaged.parquet"
    write(path, KNOWN["emu"][0], 500, row_group_size=100, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 4000] = bytes(4000)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: folder / "nowhere.parquet", "there is no file and no folder"),
        (lambda folder: folder, "holds no parquet files"),
        (of_masks, "no column holds captions or pictures"),
        (of_text, "cannot be read as parquet"),
        (damaged, "cannot be read as parquet"),
    ],
)
def test_a_set_that_cannot_be_read_is_named_with_its_option(tmp_path, make, told):
    path = make(tmp_path)
    with pytest.raises(UserError, match=told) as raised:
        [list(read_set(each)) for each in open_sets([str(path)])]
    assert f"--against {path}" in str(raised.value)


def test_files_of_one_folder_need_the_same_columns(tmp_path):
    write(tmp_path / "set" / "a.parquet", KNOWN["emu"][0])
    write(tmp_path / "set" / "b.parquet", {"image": IMAGE})
    with pytest.raises(UserError, match=r"b\.parquet has no column input_caption, as a\.parquet has"):
        open_sets([str(tmp_path / "set")])


def test_two_sets_of_one_name_are_refused(tmp_path):
    paths = [str(write(tmp_path / folder / "set.parquet", KNOWN["emu"][0])) for folder in ("a", "b")]
    with pytest.raises(UserError, match="two sets are named set"):
        open_sets(paths)
