"""``editpairs audit``: planted captions and pictures are found in a run, and the cards say so."""

import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from stages.shards.card import audit_section
from tests.toybox_runs import Run

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def run(toybox_run, tmp_path) -> Run:
    """A finished run that this test may change."""
    made = Run(tmp_path)
    shutil.copytree(toybox_run.folder, made.folder, copy_function=shutil.copy2)
    return made


def jpeg(png: bytes, side: int = 200) -> bytes:
    content = BytesIO()
    Image.open(BytesIO(png)).resize((side, side)).save(content, "JPEG", quality=85)
    return content.getvalue()


def noise(seed: int) -> bytes:
    content = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def evaluation_set(path: Path, captions: list[str | None], pictures: list[bytes | None]) -> Path:
    table = pa.table(
        {
            "input_caption": pa.array(captions, pa.string()),
            "image": pa.array([p and {"bytes": p, "path": None} for p in pictures], IMAGE),
        }
    )
    pq.write_table(table, path, row_group_size=2)
    return path


def audit(run: Run, *sets: Path, options: tuple[str, ...] = ()):
    files = [str(path) for path in sets]
    return CliRunner().invoke(app, ["audit", str(run.folder), "--against", *files, *options])


def content(run: Run) -> dict:
    return json.loads((run.folder / "audit.json").read_text(encoding="utf-8"))


def checked(run: Run) -> bool:
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=run.folder, capture_output=True, text=True)
    return done.returncode == 0


def test_shared_captions_and_pictures_are_found_and_the_cards_say_so(run, tmp_path):
    pairs = run.shards().to_dict("records")
    first, second, third = pairs[:3]
    said = f" {first['input_caption'].upper()}!\u200b "
    emu = evaluation_set(
        tmp_path / "emu.parquet",
        [said, None, "a zeppelin over a lake", said],
        [jpeg(second["I"]["bytes"]), b"\xff\xd8\xff broken", None, noise(1)],
    )
    brush = tmp_path / "brush.parquet"
    pq.write_table(pa.table({"target_img": [jpeg(third["Tar"]["bytes"]), noise(2)]}), brush)
    told = audit(run, emu, brush)
    assert told.exit_code == 0, told.output
    assert "emu" in told.output
    found, other = content(run)["sets"]
    counted = ("rows", "captions", "pictures", "broken", "shared_captions", "shared_pictures")
    assert [found[name] for name in counted] == [4, 2, 2, 2, 1, 1]
    assert [other[name] for name in counted] == [2, 0, 2, 0, 0, 1]
    matches = {(m["row"], m["ours"], m["file"], m["place"]) for m in found["matches"]}
    assert (first["id"], "input_caption", "emu.parquet", 0) in matches
    assert (
        second["id"],
        "anchor" if second["task_planned"] != "add" else "target",
        "emu.parquet",
        0,
    ) in matches
    assert {m["row"] for m in other["matches"]} == {third["id"]}
    assert other["pairs"] == 1
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    assert "- audited against emu: 1 captions, 1 pictures shared, in " in card
    assert f"- audited against brush: 0 captions, 1 pictures shared, in 1 of {len(pairs)} pairs" in card
    assert "2 pictures could not be read" in card
    assert checked(run)
    told = CliRunner().invoke(app, ["validate", str(run.folder)])
    assert told.exit_code == 0, told.output
    out = tmp_path / "out"
    told = CliRunner().invoke(app, ["export", str(run.folder), "--to", "datasets", "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert "audited against emu: 1 captions" in (out / "README.md").read_text(encoding="utf-8")


def test_nothing_shared_is_recorded_too_and_a_changed_run_says_that_it_was_not_audited(run, tmp_path):
    clean = evaluation_set(tmp_path / "clean.parquet", ["a zeppelin"], [noise(3)])
    told = audit(run, clean, options=("--quiet",))
    assert (told.exit_code, told.output) == (0, "")
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    assert "- audited against clean: 0 captions, 0 pictures shared, in 0 of " in card
    assert "changed since the audit" not in card
    before = run.files("shards")
    run.generate_here()
    assert run.files("shards") == before
    assert (run.folder / "README.md").read_text(encoding="utf-8") == card, "generate keeps the audit"
    run.generate_here("filter.default.clip_direction=0.9")
    assert "changed since the audit" in (run.folder / "README.md").read_text(encoding="utf-8")
    assert checked(run)


def test_a_set_that_cannot_be_read_ends_the_audit_and_records_nothing(run, tmp_path):
    card = (run.folder / "README.md").read_bytes()
    good = evaluation_set(tmp_path / "good.parquet", ["a cat"], [noise(4)])
    told = audit(run, good, tmp_path / "nowhere.parquet")
    assert told.exit_code == 2
    assert "nowhere.parquet: there is no file" in " ".join(told.output.split())
    assert not (run.folder / "audit.json").exists()
    assert (run.folder / "README.md").read_bytes() == card


def test_a_damaged_audit_is_named(run, tmp_path):
    (run.folder / "audit.json").write_text('{"sets": 5}')
    told = CliRunner().invoke(
        app, ["export", str(run.folder), "--to", "datasets", "--out", str(tmp_path / "out")]
    )
    assert told.exit_code == 2
    assert "audit.json is damaged" in told.output
    clean = evaluation_set(tmp_path / "clean.parquet", ["a zeppelin"], [noise(3)])
    assert audit(run, clean).exit_code == 0, "an audit replaces it"


def test_the_name_of_a_set_cannot_break_the_card():
    one = {"captions": 1, "pictures": 0, "broken": 0, "shared_captions": 0, "shared_pictures": 0, "pairs": 0}
    columns = {"caption_columns": ["caption"], "picture_columns": []}
    sets = [{"name": "a | b\n# [x](http://evil)<img>", **one, **columns}]
    [text] = audit_section({"audit": {"sets": sets, "pairs": 3, "bits": 4, "current": True}})
    assert text.count("\n#") == 0
    assert r"\[x\](http://evil)\<img>" in text
    assert audit_section({}) == []
