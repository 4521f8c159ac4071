"""Exports of a toybox run, each read back by the package that its users have."""

import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
import yaml
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.exports import SIDES, file_key, parquet, preference, side_of
from pipeline.exports.card import licence_of
from pipeline.exports.names import Writers, numbered
from pipeline.store.outputs import new_folder
from stages.shards.card import PICTURE
from tests.toybox_runs import ROOT, Run

FORMATS = ["datasets", "webdataset", "magicbrush", "preference"]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def export(run: Run, to: str, out: Path, share: float = 0.4):
    return CliRunner().invoke(
        app, ["export", str(run.folder), "--to", to, "--out", str(out), "--test-share", str(share)]
    )


def exported(run: Run, to: str, out: Path, share: float = 0.4) -> Path:
    told = export(run, to, out, share)
    assert told.exit_code == 0, (told.output, told.exception)
    assert not list(out.parent.glob(".*.tmp"))
    return out


def load(folder: Path, cache: Path) -> datasets.DatasetDict:
    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def pixels(data: dict | Image.Image) -> np.ndarray:
    picture = Image.open(BytesIO(data["bytes"])) if isinstance(data, dict) else data
    return np.array(picture.convert("RGB"))


@given(st.lists(st.sets(st.sampled_from(SIDES)), max_size=12))
def test_files_of_a_side_are_numbered_without_gaps_whichever_have_rows(sides):
    names = numbered([sorted(present) for present in sides], ".tar")
    assert [set(named) for named in names] == sides
    for side in SIDES:
        of_side = [named[side] for named in names if side in named]
        assert of_side == [f"{side}-{k:05d}-of-{len(of_side):05d}.tar" for k in range(len(of_side))]


def test_a_run_that_changes_while_it_is_exported_is_one_message():
    with pytest.raises(UserError, match="changed while it was exported"):
        Writers({"train": 1})["test"]


@given(st.text(max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_adds_captions_to_the_test_side(caption, first, second):
    low, high = sorted((first, second))
    assert side_of(caption, 0) == "train"
    if side_of(caption, low) == "test":
        assert side_of(caption, high) == "test"


def test_the_share_is_about_what_was_asked():
    sides = [side_of(f"a picture of {n}", 0.1) for n in range(5000)]
    assert 0.08 < sides.count("test") / 5000 < 0.12


def test_datasets_reads_both_sides_and_no_caption_is_on_both(toybox_run, tmp_path):
    sides = load(exported(toybox_run, "datasets", tmp_path / "out"), tmp_path / "cache")
    published = toybox_run.shards().set_index("id")
    assert sum(len(side) for side in sides.values()) == len(published)
    captions = {name: set(side["input_caption"]) for name, side in sides.items()}
    assert set(captions) == {"train", "test"}
    assert not captions["train"] & captions["test"]
    for side in sides.values():
        for row in side:
            shard = published.loc[row["id"]]
            assert (row["T"], row["TI"], row["task"]) == (shard["T"], shard["TI"], shard["task"])
            assert np.array_equal(pixels(row["Tar"]), pixels(shard["Tar"]))


@pytest.mark.parametrize("to", FORMATS)
def test_the_same_run_gives_the_same_bytes(toybox_run, tmp_path, to):
    files = [
        {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        for out in (exported(toybox_run, to, tmp_path / str(k)) for k in (0, 1))
    ]
    assert files[0] == files[1]
    assert files[0]


def test_datasets_reads_the_tars_too(toybox_run, tmp_path):
    """By the types in the card: columns that are null in the first rows would be guessed wrongly."""
    folder = exported(toybox_run, "webdataset", tmp_path / "out")
    sides = load(folder, tmp_path / "cache")
    published = toybox_run.shards().set_index("id")
    assert set(sides) == {"train", "test"}
    assert sum(len(side) for side in sides.values()) == len(published)
    for row in [row for side in sides.values() for row in side]:
        shard = published.loc[row["json"]["id"]]
        assert row["json"]["T"] == shard["T"]
        assert np.array_equal(pixels(row["target.png"]), pixels(shard["Tar"]))
    assert sides["train"].features["json"]["clip_direction"] == datasets.Value("float32")


@pytest.mark.parametrize("to", ["datasets", "magicbrush", "preference"])
def test_pandas_and_arrow_read_every_parquet_layout(toybox_run, tmp_path, to):
    folder = exported(toybox_run, to, tmp_path / "out")
    paths = sorted((folder / "data").iterdir())
    frames = [pandas.read_parquet(path) for path in paths]
    rows = load(folder, tmp_path / "cache")
    assert sum(map(len, frames)) == sum(len(side) for side in rows.values()) > 0
    files = [pq.ParquetFile(path) for path in paths]
    assert all(file.num_row_groups == 1 for file in files), "a few rows are one row group"


@pytest.mark.parametrize("to", FORMATS)
def test_files_are_numbered_without_gaps_and_the_counts_told_are_those_of_the_files(toybox_run, tmp_path, to):
    out = tmp_path / "out"
    told = export(toybox_run, to, out)
    names = [path.name for path in out.rglob("*-of-*")]
    for side in ("train", "test"):
        of_side = sorted(name for name in names if name.startswith(side))
        suffix = "tar" if to == "webdataset" else "parquet"
        total = len(of_side)
        assert of_side == [f"{side}-{k:05d}-of-{total:05d}.{suffix}" for k in range(total)]
    rows = {side: len(table) for side, table in load(out, tmp_path / "cache").items()}
    table = re.search(r"^task +train +test *\n(.*)^wrote", told.output, re.DOTALL | re.MULTILINE)
    *tasks, total = (line.split() for line in table[1].splitlines())
    assert total == ["all", str(rows.get("train", 0)), str(rows.get("test", 0))]
    sums = [sum(int(line[column]) for line in tasks) for column in (1, 2)]
    assert sums == [int(word) for word in total[1:]]
    assert f"{sum(rows.values())} rows in {len(names)} files" in told.output


@pytest.mark.parametrize("to", FORMATS)
def test_the_card_s_snippet_runs_and_its_features_are_those_of_the_files(toybox_run, tmp_path, to):
    folder = exported(toybox_run, to, tmp_path / "out")
    card = DatasetCard.load(folder / "README.md")
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    home = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=home)
    assert done.returncode == 0, done.stderr
    assert "(64, 64) (64, 64)" in done.stdout
    told = datasets.Features._from_yaml_list(card.data.to_dict()["dataset_info"]["features"])
    for side in load(folder, tmp_path / "cache").values():
        assert side.features == told
    columns = re.findall(r"^\| `([^`]+)` \|", card.text.partition("## Thresholds")[0], re.MULTILINE)
    flat = [f"json.{name}" for name in told["json"]] if to == "webdataset" else []
    assert {*told, *flat} - {"json", "__key__", "__url__"} <= {*columns}
    assert card.data.license == "other"
    assert card.data.size_categories == ["n<1K"]


def test_a_licence_is_the_one_that_was_given(toybox_run, tmp_path):
    command = ["export", str(toybox_run.folder), "--to", "datasets", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, [*command, "--license", "cc-by-4.0"]).exit_code == 0
    assert DatasetCard.load(tmp_path / "out" / "README.md").data.license == "cc-by-4.0"


def test_a_file_has_a_page_index_and_keeps_its_pages_where_rows_before_them_change(tmp_path):
    """Of a file whose first row is gone, most pages are those of before: a store keeps them once."""
    noise = np.random.default_rng(0)
    schema = pa.schema([("T", pa.string()), ("I", PICTURE)])
    rows = [{"T": f"row {n}", "I": {"bytes": noise.bytes(20_000), "path": "p"}} for n in range(300)]

    def written(name: str, rows: list[dict]) -> bytes:
        with new_folder(tmp_path / name) as folder:
            table = pa.Table.from_pylist(rows, schema)
            parquet.write_files(Namespace(folder=folder), schema, [["train"]], [iter([("train", table)])])
        return (tmp_path / name / "data" / "train-00000-of-00001.parquet").read_bytes()

    before, after = written("before", rows), written("after", rows[1:])
    index = pq.ParquetFile(BytesIO(before)).metadata.row_group(0).column(0)
    assert index.has_offset_index
    assert index.has_column_index
    assert shared_chunks(before, after) > 0.8


def shared_chunks(before: bytes, after: bytes) -> float:
    """The share of pages of ``after`` that ``before`` has too, of all bytes of the pictures."""
    pages = [*pages_of(after)]
    return sum(len(page) for page in pages if page in before) / sum(map(len, pages))


def pages_of(content: bytes) -> Iterator[bytes]:
    """The bytes between zstd's magic numbers: a frame for each page."""
    starts = [match.start() for match in re.finditer(re.escape(b"\x28\xb5\x2f\xfd"), content)]
    for start, end in pairwise([*starts, len(content)]):
        yield content[start : end - 64]  # the next page's header follows, with its sizes


def test_row_groups_are_bounded_by_rows_and_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 10)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 5000)
    schema = pa.schema([("n", pa.int64()), ("data", pa.binary())])
    sizes = [1] * 25 + [900] * 12 + [9000] + [1] * 3
    with pq.ParquetWriter(tmp_path / "x.parquet", schema) as writer:
        groups = parquet.RowGroups(writer)
        for start in range(0, len(sizes), 7):
            rows = [{"n": n, "data": b"x" * sizes[n]} for n in range(start, min(start + 7, len(sizes)))]
            groups.write(pa.Table.from_pylist(rows, schema))
        groups.flush()
    file = pq.ParquetFile(tmp_path / "x.parquet")
    read = [file.read_row_group(k) for k in range(file.num_row_groups)]
    assert pa.concat_tables(read)["n"].to_pylist() == list(range(len(sizes)))
    assert all(t.num_rows <= 10 and (t.nbytes <= 5000 or t.num_rows == 1) for t in read)
    assert len(read) < 15


def test_an_export_without_rows_is_an_error(toybox_run, tmp_path, monkeypatch):
    monkeypatch.setattr(preference, "_rejected", lambda *_: None)
    told = export(toybox_run, "preference", tmp_path / "out")
    assert told.exit_code == 2
    assert "no rows" in told.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("row_id", ["../../etc/x", "a.b", "a/b", "", "x" * 300, "\x1b", "猫"])
def test_a_row_s_name_in_a_file_is_a_plain_one(row_id):
    assert re.fullmatch(r"[0-9A-Za-z_-]{1,80}", file_key(row_id))
    assert file_key("0c762de7a16ee206e313f19c605e7c66") == "0c762de7a16ee206e313f19c605e7c66"


def foreign_id(rows: list[dict]) -> None:
    rows[0]["id"] = "../../etc/x"


def a_bomb(rows: list[dict]) -> None:
    data = bytearray(rows[0]["I"]["bytes"])
    data[16:24] = (60000).to_bytes(4, "big") * 2
    rows[0]["I"]["bytes"] = bytes(data)


def a_path_alone(rows: list[dict]) -> None:
    rows[0]["Tar"] = {"bytes": None, "path": "/etc/passwd"}


@pytest.mark.parametrize("change", [foreign_id, a_bomb, a_path_alone])
@pytest.mark.parametrize("to", ["datasets", "webdataset"])
def test_a_shard_that_was_changed_is_not_passed_on(toybox_run, tmp_path, change, to):
    run = Run(tmp_path)
    shutil.copytree(toybox_run.folder, run.folder)
    path = sorted((run.folder / "shards").glob("train-*.parquet"))[0]
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    # The footer says that the file is done, as that of a careful forger would.
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "changed.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunState, "path", forged(path, tmp_path / "changed.parquet"))
        told = export(run, to, tmp_path / "out")
    assert told.exit_code == 2, told.exception
    assert not (tmp_path / "out").exists()


def forged(path: Path, instead: Path):
    real = RunState.path

    def place(self, step, unit):
        found = real(self, step, unit)
        # What is done is asked of the true file's footer.
        return instead if found == path and sys._getframe(1).f_code.co_name == "tables" else found

    return place


def test_webdataset_reads_the_tars(toybox_run, tmp_path):
    folder = exported(toybox_run, "webdataset", tmp_path / "out", share=0)
    tars = [str(path) for path in sorted(folder.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    published = toybox_run.shards()
    assert [sample["json"]["id"] for sample in samples] == published["id"].tolist()
    for sample, shard in zip(samples, published.to_dict("records"), strict=True):
        assert sample["__key__"] == f"{shard['id']}-1"
        assert np.array_equal(sample["input.png"], pixels(shard["I"]))
        assert sample["json"]["T"] == shard["T"]
        assert json.dumps(sample["json"], allow_nan=False)


def test_magicbrush_s_columns(toybox_run, tmp_path):
    rows = load(exported(toybox_run, "magicbrush", tmp_path / "out", share=0), tmp_path / "cache")["train"]
    names = ["img_id", "turn_index", "source_img", "mask_img", "instruction", "target_img"]
    assert rows.column_names == names
    assert set(rows["turn_index"]) == {1}
    assert rows[0]["mask_img"].mode == "L"
    assert rows["instruction"][:] == toybox_run.shards()["T"].tolist()


def test_a_preference_is_what_was_published_against_what_the_filter_rejects(toybox_run, tmp_path):
    folder = exported(toybox_run, "preference", tmp_path / "out", share=0)
    published = toybox_run.shards().set_index("id")
    rows = load(folder, tmp_path / "cache")["train"] if list(folder.glob("data/*")) else []
    for row in rows:
        shard = published.loc[row["id"]]
        assert np.array_equal(pixels(row["input"]), pixels(shard["I"]))
        assert np.array_equal(pixels(row["chosen"]), pixels(shard["Tar"]))
        assert np.any(pixels(row["rejected"]) != pixels(row["chosen"]))
        assert row["rejected_reason"].endswith(("_low", "_high"))
        metric = row["rejected_reason"].rsplit("_", 1)[0]
        assert row["rejected_scores"][metric] != row["chosen_scores"][metric]


def test_the_card_says_splits_thresholds_licences_and_limits(toybox_run, tmp_path):
    card = (exported(toybox_run, "datasets", tmp_path / "out") / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    assert {files["split"] for files in header["configs"][0]["data_files"]} == {"train", "test"}
    assert "40% of the captions" in card
    assert "clip_text_output >= 0.8" in card
    assert "| `toybox/weights/diffusion` | apache-2.0 |" in card
    assert "no person checked a row" in card
    assert licence_of("some/hub-model") == "not stated"


def test_a_model_s_card_of_any_content_has_a_licence_or_none(tmp_path):
    for text in ("---\nlicense: [\n---\n", "---\n" + "[" * 1500 + "\n---\n", "---\nlicense: 3\n---\n", "\0"):
        (tmp_path / "README.md").write_text(text)
        assert licence_of(str(tmp_path)) in ("not stated", "its card cannot be read")
    (tmp_path / "README.md").write_text("---\ndate: 2026-13-45\nlicense: mit\n---\n")
    assert licence_of(str(tmp_path)) == "its card cannot be read"


def test_a_licence_is_that_of_the_folder_that_the_loaders_would_open(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "README.md").write_text("---\nlicense: gpl\n---\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert licence_of("~/weights") == "mit"
    monkeypatch.chdir(tmp_path)
    assert licence_of("weights") == "mit"
    assert licence_of("served-model") == "not stated", "a name of a hub or server is no file here"


def test_a_folder_that_holds_something_is_left_alone(toybox_run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    told = export(toybox_run, "datasets", tmp_path / "mine")
    assert told.exit_code != 0
    assert "exists already" in told.output
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def first_batch(rows: datasets.Dataset, resolution: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Loads rows as diffusers' InstructPix2Pix example does: three columns, a transform, a DataLoader."""

    def prepare(examples: dict) -> dict:
        for column, name in (("I", "original"), ("Tar", "edited")):
            resized = [pixels(picture.resize((resolution, resolution))) for picture in examples[column]]
            examples[name] = 2 * (torch.tensor(np.stack(resized)).permute(0, 3, 1, 2) / 255) - 1
        return examples

    def collate(examples: list[dict]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        original, edited = (torch.stack([row[name] for row in examples]) for name in ("original", "edited"))
        return original, edited, [row["T"] for row in examples]

    loader = torch.utils.data.DataLoader(rows.with_transform(prepare), batch_size=4, collate_fn=collate)
    return next(iter(loader))


@pytest.mark.parametrize("kind", ["published", "exported"])
def test_a_training_script_s_loading_reads_the_rows(toybox_run, tmp_path, kind):
    folder = toybox_run.folder / "shards"
    if kind == "exported":
        folder = exported(toybox_run, "datasets", tmp_path / "out", share=0)
    rows = load(folder, tmp_path / "cache")["train"]
    original, edited, prompts = first_batch(rows, 64)
    assert original.shape == edited.shape == (4, 3, 64, 64)
    assert -1 <= float(original.min()) < float(original.max()) <= 1
    shard = toybox_run.shards().iloc[0]
    back = ((original[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(back, pixels(shard["I"]))
    assert prompts[0] == shard["T"]
