"""``editpairs validate`` on a finished run of the toybox, and on copies in which something is wrong."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.audit.validate import CHECKS, Findings, _Drawn, validate
from pipeline.cli import app
from pipeline.engine.state import RunState
from pipeline.manifest.steps import Step
from pipeline.store.folder import RunFolder
from pipeline.store.plan import Plan
from pipeline.views.run import open_state
from stages.pictures.png import decode_rgb, encode_png
from tests.toybox_runs import ROOT, Run


def rewritten(change: Callable[[list[dict]], None]) -> Callable[[Path], None]:
    """A corruption of the first shard's rows, with the checksum left as it was."""

    def corrupt(run: Path) -> None:
        path = first_shard(run)
        table = pq.read_table(path)
        rows = table.to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)

    return corrupt


def first_shard(run: Path) -> Path:
    return sorted((run / "shards").glob("train-*.parquet"))[0]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(bytes(content))


def swap(rows: list[dict]) -> None:
    rows[0]["I"], rows[0]["Tar"] = rows[0]["Tar"], rows[0]["I"]


def equal_pictures(rows: list[dict]) -> None:
    rows[0]["Tar"]["bytes"] = rows[0]["I"]["bytes"]


def cut_picture(rows: list[dict]) -> None:
    rows[0]["I"]["bytes"] = rows[0]["I"]["bytes"][:40]


def other_size(rows: list[dict]) -> None:
    rows[0]["Tar"]["bytes"] = encode_png(cv2.resize(decode_rgb(rows[0]["Tar"]["bytes"]), (32, 32)))


def no_caption(rows: list[dict]) -> None:
    rows[0]["output_caption"] = " "


def no_instruction(rows: list[dict]) -> None:
    rows[0]["T"] = None


def wrong_index(rows: list[dict]) -> None:
    tasks = [row["task"] for row in rows]
    rows[next((k for k, task in enumerate(tasks) if tasks.count(task) > 1), 0)]["TI"] = 99


def not_a_number(rows: list[dict]) -> None:
    rows[0]["clip_text_input"] = float("nan")


def twice(rows: list[dict]) -> None:
    rows.append(rows[0])


def a_row_less(rows: list[dict]) -> None:
    rows.pop()


def drop_a_column(run: Path) -> None:
    path = first_shard(run)
    pq.write_table(pq.read_table(path).drop_columns(["mask_policy"]), path)


CORRUPTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of a shard": (lambda run: flip_a_byte(first_shard(run)), "checksum"),
    "a byte of a part": (lambda run: flip_a_byte(run / "edit" / "00000.parquet"), "part"),
    "a byte of the plan": (lambda run: flip_a_byte(run / "plan.parquet"), "part"),
    "a shard is gone": (lambda run: first_shard(run).unlink(), "checksum"),
    "a part is gone": (lambda run: (run / "score" / "00001.parquet").unlink(), "unfinished"),
    "a shard is cut short": (
        lambda run: first_shard(run).write_bytes(first_shard(run).read_bytes()[:-64]),
        "schema",
    ),
    "a column is gone": (drop_a_column, "schema"),
    "a row twice": (rewritten(twice), "row id"),
    "a row less": (rewritten(a_row_less), "count"),
    "I and Tar swapped": (rewritten(swap), "swapped"),
    "Tar is I": (rewritten(equal_pictures), "identical"),
    "a picture is cut": (rewritten(cut_picture), "picture"),
    "another size": (rewritten(other_size), "picture"),
    "no output caption": (rewritten(no_caption), "text"),
    "no instruction": (rewritten(no_instruction), "text"),
    "an unknown TI": (rewritten(wrong_index), "task"),
    "a score that is not a number": (rewritten(not_a_number), "score"),
}


@pytest.fixture
def copy(toybox_run, tmp_path) -> Run:
    made = Run(tmp_path)
    shutil.copytree(toybox_run.folder, made.folder)
    return made


def test_a_finished_run_is_fine_and_every_check_looked_at_something(toybox_run, monkeypatch):
    monkeypatch.chdir(ROOT)
    told = CliRunner().invoke(app, ["validate", str(toybox_run.folder)])
    assert told.exit_code == 0, told.output
    assert "nothing is wrong" in told.output
    findings = validate(toybox_run.folder / "shards", open_state(toybox_run.folder))
    assert set(findings.checked) == set(CHECKS)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_planted_corruption_is_found(name, copy, monkeypatch):
    monkeypatch.chdir(ROOT)
    corrupt, check = CORRUPTIONS[name]
    corrupt(copy.folder)
    told = CliRunner().invoke(app, ["validate", str(copy.folder)])
    assert told.exit_code == 1, told.output
    assert "Traceback" not in told.output
    if name != "a byte of the plan":
        findings = validate(copy.folder / "shards", open_state(copy.folder))
        assert findings.wrong[check], findings.wrong


def test_shards_alone_are_checked_for_what_can_be_known_of_them(toybox_run, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(toybox_run.folder / "shards", shards)
    assert not validate(shards, None).wrong
    rewritten(equal_pictures)(tmp_path)
    assert set(validate(shards, None).wrong) == {"checksum", "identical"}
    told = CliRunner().invoke(app, ["validate", str(tmp_path / "nothing")])
    assert told.exit_code != 0
    assert np.all([check in CHECKS for check in validate(shards, None).checked])


def test_a_row_that_a_shard_should_not_hold_is_looked_for_in_the_shards_parts_alone(tmp_path, monkeypatch):
    """Otherwise one such row would have the pictures of the whole run read, and kept in memory."""
    step = Step("shards", "f", ("filter",), parts_per_unit=4)
    plan = Plan("digest", {}, 18, 0, (2,) * 18, Counter(add=36))
    read: list[int] = []

    def of_part(self, part):
        read.append(part)
        return {f"{part} {row}": (b"i", b"tar") for row in range(2)}

    monkeypatch.setattr(_Drawn, "_read", of_part)
    drawn, findings = _Drawn(RunState(RunFolder(tmp_path), plan, [step]), {}, step), Findings()

    def check(row_id: str) -> None:
        drawn.check({"id": row_id, "I": {"bytes": b"i"}, "Tar": {"bytes": b"tar"}}, findings)

    drawn.begin("train-00001-of-00005.parquet")
    for row_id in ("4 1", "foreign", "7 0", "8 0"):
        check(row_id)
    assert read == [4, 5, 6, 7]
    drawn.begin("train-00004-of-00005.parquet")
    check("16 0")
    drawn.begin("train-00000-of-00009.parquet")
    check("17 0")
    assert read == [4, 5, 6, 7, 16]
    assert findings.wrong["swapped"] == ["foreign", "8 0", "17 0"]
