"""Pictures without captions: their rows are planned and checked, and what each setting needs is named."""

import io
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline.api import chain_of
from pipeline.audit.check import Machine, check
from pipeline.errors import UserError
from pipeline.inputs.planning import ensure_plan, plan_settings
from pipeline.manifest.fingerprint import identities_of
from pipeline.manifest.lockfile import locked_manifest, write_lock
from pipeline.manifest.manifest import Manifest, read_manifest, tasks_of
from pipeline.manifest.steps import build_steps
from pipeline.store.folder import RunFolder
from pipeline.store.location import locate
from pipeline.store.plan import origins
from stages import STAGES
from tests.pipeline.runs import ROOT
from tests.pipeline.test_pictures import embed, folder, write

__all__ = ["folder"]  # a fixture

DESCRIBE = "describe={model: Qwen/Qwen2.5-VL-7B-Instruct}"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def manifest(*settings: str) -> Manifest:
    return read_manifest(ROOT / "manifests" / "toybox.yaml", settings, STAGES)


def pictures_of(path, *settings: str) -> Manifest:
    captions = f"captions={{file: {path}, column: null, picture: image}}"
    return manifest(captions, DESCRIBE, f"runs={path.parent / 'runs'}", *settings)


def planned(made: Manifest) -> tuple[RunFolder, list[dict]]:
    run = RunFolder(made.folder)
    made.folder.mkdir(parents=True, exist_ok=True)
    ensure_plan(run, made)
    return run, pq.read_table(run.plan).to_pylist()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_rows_are_planned_by_their_pictures_without_a_caption_column(folder, suffix):
    names = ["a.png", "below/b c.png", "a.png", "gone.png"]
    made = pictures_of(write(folder, suffix, names), "repeats=2", "rows=null")
    run, rows = planned(made)
    assert Counter(row["row"] for row in rows) == {0: 2, 1: 2, 3: 2}, "the same path twice is a duplicate"
    assert {row["caption"] for row in rows} == {""}
    assert plan_settings(made)["captions.column"] is None
    assert len({row["id"] for row in rows}) == len({row["seed"] for row in rows}) == 6
    groups = origins(run.plan, 0)
    of_picture = {row["picture"]: groups[row["id"]] for row in rows}
    assert len(set(of_picture.values())) == 3, "edits of one picture belong together, and no others"
    assert all(groups[row["id"]] == of_picture[row["picture"]] for row in rows)


def test_pictures_in_parquet_are_planned_each(folder):
    path = embed(folder / "c.parquet", [b"1", b"2", b"1"], pa.binary())
    _, rows = planned(pictures_of(path, "rows=null"))
    assert [row["row"] for row in sorted(rows, key=lambda row: row["row"])] == [0, 1, 2]


def test_rows_with_a_caption_are_told_apart_by_it(folder):
    lines = [{"caption": text, "image": "a.png"} for text in ("a dog", "", " ")]
    (folder / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = manifest(
        f"captions={{file: {folder / 'c.jsonl'}, picture: image}}", DESCRIBE, f"runs={folder}", "rows=null"
    )
    run, rows = planned(made)
    groups = origins(run.plan, 0)
    digest = rows[0]["picture_digest"]
    assert {row["caption"]: groups[row["id"]] for row in rows} == {"a dog": "a dog", "": digest, " ": digest}


def test_a_run_s_own_captions_are_their_rows_origins(run):
    run.run.mkdir(parents=True)
    ensure_plan(RunFolder(run.run), run.manifest())
    rows = pq.read_table(run.run / "plan.parquet").to_pylist()[:4]
    assert origins(run.run / "plan.parquet", 0) == {row["id"]: row["caption"] for row in rows}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((DESCRIBE,), "describe: it captions the rows' own pictures: set captions.picture"),
        (
            ("captions.column=null", "captions.picture=image"),
            "captions.column: null leaves all rows without captions: add a section describe, which writes "
            "captions of the rows' pictures, or name the column",
        ),
        (("captions.column=null",), "captions.column: null leaves all rows without captions: add a section"),
        (
            ("captions.picture=image", "captions.column=null", DESCRIBE, "turns=2"),
            "captions.picture: sessions begin with a drawn picture",
        ),
        (
            ("captions.picture=image", "describe={model: m, wodrs: 9}"),
            "unknown key 'describe.wodrs'; did you mean 'describe.words'?",
        ),
        (("captions.picture=image", "describe={words: 9}"), "the key 'describe.model' is missing"),
        (
            ("captions.picture=image", DESCRIBE, "diffusion.height=64"),
            "diffusion.height and diffusion.width: set both or neither",
        ),
    ],
)
def test_what_a_setting_needs_is_one_message(settings, message):
    with pytest.raises(UserError) as refused:
        manifest(*settings)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image\n", r"captions\.file: .* holds no rows"),
        ("picture\na.png\n", r"captions\.picture: .*no column 'image'"),
    ],
)
def test_a_file_without_pictures_is_one_message(folder, content, message):
    (folder / "c.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        planned(pictures_of(folder / "c.csv"))


def test_a_column_of_empty_captions_names_the_way_out(folder):
    (folder / "c.csv").write_text("caption,image\n,a.png\n")
    made = manifest(f"captions={{file: {folder / 'c.csv'}, picture: image}}", DESCRIBE, f"runs={folder}")
    with pytest.raises(UserError, match=r"is captions\.column the right one\? \(null is for pictures"):
        planned(made)


def test_check_counts_pictures_and_names_the_model_and_its_licence(folder):
    made, out = pictures_of(write(folder, ".csv"), "tasks.mixture={color: 1}"), io.StringIO()
    check(made, chain_of(made), Machine(8, 1), Console(file=out, width=200))
    told = out.getvalue()
    assert "toybox: 8 pictures, up to" in told
    assert "describe.model" in told
    assert "Qwen/Qwen2.5-VL-7B-Instruct" in told
    assert not (folder / "runs").exists()


def test_a_lock_file_holds_the_section_and_no_more_of_diffusion_than_it_reads(folder):
    made = pictures_of(write(folder, ".csv"), "diffusion.buckets=[[64, 64], [64, 80]]")
    chain, tasks = chain_of(made), tasks_of(made)
    identities = identities_of(chain, made.configs(chain), tasks)
    steps = build_steps(chain, made.configs(chain), dict.fromkeys(chain, "f"))
    lock = locate(str(folder / "manifest.lock.yaml"))
    write_lock(lock, made, tasks, steps, identities, ())
    locked = locked_manifest(lock, STAGES)
    assert (locked.captions, locked.sections["describe"]) == (made.captions, made.sections["describe"])
    assert not [key for key in identities["describe"] if key.startswith("diffusion.model")]
    assert identities["describe"]["diffusion.buckets.1.1"] == 80
