"""What is on the disk is not believed too easily: misplaced, foreign, unreadable, vanished files."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.engine.ledger import count_run
from pipeline.errors import StageError, UserError
from pipeline.manifest.lockfile import read_lock
from pipeline.views.outcomes import survey
from pipeline.views.run import open_state
from tests.pipeline.fake_stages import Publish, Sieve
from tests.pipeline.runs import FakeRun, assert_sum_is_exact


@pytest.mark.parametrize(("part", "over"), [("write/00001", "write/00002"), ("draw/00000", "draw/00004")])
def test_a_part_in_another_parts_place_is_made_again(run, part, over):
    run.generate()
    before = run.files()
    shutil.copy(run.run / f"{part}.parquet", run.run / f"{over}.parquet")
    told = CliRunner().invoke(app, ["status", str(run.run)])
    assert f"{over}.parquet cannot be believed: it is a file of {part.split('/')[0]}" in told.output
    state = open_state(run.run)
    assert sum(count.pending.total() for count in count_run(state)) > 0
    assert_sum_is_exact(state)
    assert_sum_is_exact(run.generate())
    assert run.files() == before


def test_a_part_of_another_stage_is_not_believed(run):
    run.generate()
    before = run.files()
    shutil.copy(run.run / "write" / "00001.parquet", run.run / "draw" / "00001.parquet")
    run.generate()
    assert run.files() == before


def test_an_expensive_part_of_another_run_is_not_replaced_unasked(make_run):
    run, other = make_run("one"), make_run("two", captions=[f"a blue ball {i}" for i in range(20)])
    run.generate()
    other.generate()
    before = run.files()
    foreign = run.run / "draw" / "00001.parquet"
    shutil.copy(other.run / "draw" / "00001.parquet", foreign)
    content = foreign.read_bytes()
    with pytest.raises(UserError, match=r"draw/00001\.parquet cannot be believed: .*another run.*--replace"):
        run.generate()
    assert foreign.read_bytes() == content
    run.generate(replace=True)
    assert run.files() == before


@pytest.mark.parametrize(
    "path", ["plan.parquet", "write/00001.parquet", "draw", "manifest.lock.yaml", "footers.parquet"]
)
def test_what_cannot_be_read_is_not_taken_for_missing(run, path):
    """A folder in a file's place and a file in a folder's place: also root may not read them."""
    run.generate()
    before = run.inodes("sieve", "shards")
    place = run.run / path
    kept = run.folder / "kept"
    if place.exists():
        shutil.move(place, kept)
    if kept.is_dir():
        place.write_bytes(b"")
    else:
        place.mkdir()
    told = []
    for command in (lambda: count_run(_scanned(run)), run.generate, lambda: run.generate(replace=True)):
        try:
            command()
        except (OSError, UserError) as error:
            told.append(str(error))
    if path == "footers.parquet":  # it may be anything: it is a copy of what others say
        assert not told
        return
    assert len(told) == 3
    assert all(path in text for text in told)
    assert run.inodes("sieve", "shards") == before


def _scanned(run: FakeRun):
    state = open_state(run.run)
    state.scan()
    return state


def test_what_is_not_ours_stays(run):
    run.generate()
    mine = {
        "notes.tmp": b"notes",
        "draw/notes.tmp": b"more",
        "shards/train-mine.parquet": b"mine",
        "shards/train-00000-of-00099.parquet": b"someone's",
    }
    for name, content in mine.items():
        (run.run / name).write_bytes(content)
    for name in ("old.tmp", "draw/old.tmp", ".editpairs-x.tmp"):
        (run.run / name).mkdir()
    run.generate()
    run.rerun("write")
    assert {name: (run.run / name).read_bytes() for name in mine} == mine
    assert all((run.run / name).is_dir() for name in ("old.tmp", "draw/old.tmp", ".editpairs-x.tmp"))


def test_shards_of_another_size_go_and_a_readme_of_the_users_stays(make_run):
    run = make_run()
    run.run.mkdir(parents=True)
    (run.run / "README.md").write_text("my notes on this run")
    run.generate()
    assert (run.run / "README.md").read_text() == "my notes on this run"
    assert len(list((run.run / "shards").iterdir())) == 3
    run.generate("shards.parts_per_shard=5")
    assert [path.name for path in (run.run / "shards").iterdir()] == ["train-00000-of-00001.parquet"]


@pytest.mark.parametrize("damage", [None, b"", b"half a ca"])
@pytest.mark.parametrize("name", ["README.md", "SHA256SUMS"])
def test_card_and_checksums_are_made_again_whenever_they_are_not_what_they_should_be(run, name, damage):
    run.generate()
    path = run.run / name
    before = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    run.generate()
    assert path.read_bytes() == before
    assert f"shards/{sorted(os.listdir(run.run / 'shards'))[0]}" in (run.run / "SHA256SUMS").read_text()


def test_events_decide_nothing(run):
    run.generate()
    before = run.files(), (run.run / "README.md").read_bytes(), (run.run / "SHA256SUMS").read_bytes()
    (run.run / "events.jsonl").unlink()
    (run.run / "SHA256SUMS").unlink()
    run.generate()
    assert before == (
        run.files(),
        (run.run / "README.md").read_bytes(),
        (run.run / "SHA256SUMS").read_bytes(),
    )


def test_another_schema_is_another_stage(run, monkeypatch):
    run.generate()
    monkeypatch.setattr(Sieve, "schema", pa.schema([*Sieve.schema, pa.field("more", pa.float32())]))
    state = run.generate()
    table = run.run / "sieve" / "00000.parquet"
    assert "more" in pq.read_schema(table).names
    assert_sum_is_exact(state)


def test_a_damaged_lock_is_named_and_may_be_deleted(run):
    run.generate()
    before = run.inodes()
    lock = run.run / "manifest.lock.yaml"
    content = lock.read_bytes()
    lock.write_bytes(content.replace(b"parts_per_unit: 2", b"parts_per_unit: 3"))
    assert lock.read_bytes() != content
    for command in (run.generate, lambda: open_state(run.run)):
        with pytest.raises(UserError, match=r"manifest\.lock\.yaml is damaged.*Delete it"):
            command()
    lock.unlink()
    run.generate()
    assert lock.read_bytes() == content
    assert run.inodes() == before


@pytest.mark.parametrize(
    "lines",
    [
        [{"stage": "draw", "unit": 0, "rows": "four", "wall": []}],
        [{"stage": ["draw"], "unit": 0}],
        [{"published": 3, "written": "x"}],
        ["torn", 5, None],
    ],
)
def test_lines_of_wrong_types_among_the_events_are_no_traceback(run, lines):
    run.generate()
    with (run.run / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    told = CliRunner().invoke(app, ["status", str(run.run)])
    assert told.exit_code == 0, told.output
    run.generate()


def after_commit(monkeypatch, when, act) -> None:
    """Do something once the file that is named ``when`` has been committed."""
    really = os.replace

    def replace(source, target):
        really(source, target)
        if when in str(target):
            act(target)

    monkeypatch.setattr(os, "replace", replace)


def test_a_part_that_vanishes_right_after_its_commit_stops_the_run(run, monkeypatch):
    with monkeypatch.context() as patch:
        after_commit(patch, "draw/00002", os.unlink)
        with pytest.raises(
            StageError, match=r"draw/00002\.parquet was written, and right after: it is not th"
        ):
            run.generate()
    assert_sum_is_exact(_scanned(run))
    assert_sum_is_exact(run.generate())


def test_an_input_that_vanishes_is_one_message(run, monkeypatch):
    with monkeypatch.context() as patch:
        after_commit(patch, "draw/00002", lambda _: os.unlink(run.run / "write" / "00004.parquet"))
        with pytest.raises((UserError, FileNotFoundError), match=r"write/00004\.parquet"):
            run.generate()
    assert_sum_is_exact(run.generate())


def test_a_driver_whose_lock_was_deleted_stops(run, monkeypatch):
    def delete(_) -> None:
        (run.run / ".lock").unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        after_commit(patch, "draw/00002", delete)
        with pytest.raises(UserError, match=r"\.lock, by which this process holds the run, was deleted"):
            run.generate()
    assert_sum_is_exact(run.generate())


def test_a_driver_that_lost_its_lock_leaves_the_others_unfinished_files(run, monkeypatch):
    from pipeline.store.new_file import temporary

    theirs = temporary(run.run / "draw" / "00003.parquet", "0af3")

    def take_over(_) -> None:
        (run.run / ".lock").unlink()
        (run.run / ".lock").touch()
        theirs.write_bytes(b"being written")

    with monkeypatch.context() as patch:
        after_commit(patch, "draw/00002", take_over)
        with pytest.raises(UserError, match="this one stops"):
            run.generate()
    assert theirs.read_bytes() == b"being written"


def test_a_run_of_an_earlier_version_is_refused_with_the_way_out(run):
    run.generate()
    table = pq.read_table(run.run / "plan.parquet")
    pq.write_table(table.replace_schema_metadata({"editpairs": "{}"}), run.run / "plan.parquet")
    with pytest.raises(UserError, match="another run name") as error:
        run.generate()
    assert "earlier" in str(error.value)
    assert read_lock(run.run / "manifest.lock.yaml")


def test_views_believe_no_page_whose_checksum_is_wrong(run):
    """A digit changed in what a view reads of a part: a message, and no other histogram or curve."""
    state = run.generate()
    step = state.steps["write"]
    path = state.path(step, 0)
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    assert column.path_in_schema == "reason"
    content[column.dictionary_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"write/00000\.parquet cannot be believed"):
        survey(_scanned(run), [0])


def test_a_damaged_shard_is_named_before_it_is_described(run, monkeypatch):
    state = run.generate()
    monkeypatch.setattr(Publish, "describe", lambda *_: pytest.fail("it was read unchecked"))
    shard = state.path(state.steps["shards"], 1)
    content = bytearray(shard.read_bytes())
    content[40] ^= 8
    shard.write_bytes(content)
    (run.run / "README.md").unlink()
    with pytest.raises(UserError, match=r"shards/train-00001-of-00003\.parquet cannot be believed"):
        run.generate()
