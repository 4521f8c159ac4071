"""Runs on s3://: the same guarantees as on a disk. The server is moto's, a real HTTP server in Python."""

import gc
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import weakref
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.engine.ledger import count_run
from pipeline.engine.state import RunState
from pipeline.errors import StageError, UserError
from pipeline.inputs.captions import content_hash, read_captions
from pipeline.store import events
from pipeline.store import lock as locks
from pipeline.store.answers import HELD, KeptAnswers
from pipeline.store.files import SMALL as SMALL_OBJECT
from pipeline.store.files import put, remove
from pipeline.store.folder import RunFolder
from pipeline.store.location import arrow_source, list_folder, locate
from pipeline.store.lock import HeldError, held_in_turn
from pipeline.store.new_file import NewFile, write_text
from pipeline.store.outputs import new_file, new_folder
from pipeline.store.parts import read_footer
from pipeline.store.plan import read_part
from pipeline.store.sealed import read_table
from pipeline.store.sealed_lines import sealed_line
from pipeline.store.sealed_writer import SealedWriter
from pipeline.verdicts.book import Book
from pipeline.verdicts.given_file import read_given
from tests.pipeline.pruned_runs import SketchedRun
from tests.pipeline.runs import FakeRun, assert_sum_is_exact, files_below
from tests.toybox_runs import ROOT, SMALL
from tests.waiting import wait_for_files

SECRET = "nobody-may-find-this-in-a-run"


@pytest.fixture(scope="module", autouse=True)
def bucket():
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        locate("s3://pairs").fs.clear_instance_cache()  # one that was made without credentials
        locate("s3://pairs").mkdir()
        yield
    server.stop()


CAPTIONS = [f"a red cube number {i}" for i in range(8)]
"""Two parts and a shard: each request costs ten milliseconds."""


@pytest.fixture
def on_s3(make_run, request) -> FakeRun:
    """In a folder whose name would be a pattern: a test with parameters has brackets."""
    return make_run("remote", CAPTIONS, runs=f"s3://pairs/{request.node.name}[*?]")


def test_an_object_is_there_wholly_or_not_at_all():
    path = locate("s3://pairs/files/a.txt")
    abandoned = NewFile(path)
    abandoned.write(b"half")
    assert not path.exists()
    abandoned.abandon()
    assert not path.exists()
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_a_file_that_was_given_up_before_its_first_row_is_never_uploaded():
    path = locate("s3://pairs/files/b.parquet")
    unwritable = pa.schema([pa.field("x", pa.dense_union([pa.field("y", pa.int8())]))])
    with pytest.raises(pa.ArrowNotImplementedError):
        SealedWriter(path, unwritable)
    gc.collect()  # closes what was left open
    assert not path.exists()


def test_a_run_has_the_bytes_of_one_on_a_disk(on_s3, make_run):
    local = make_run("local", CAPTIONS)
    local.generate()
    state = on_s3.generate()
    assert on_s3.files() == local.files()
    assert_sum_is_exact(state)
    events = len(list(on_s3.run.joinpath("events.jsonl").read_text().splitlines()))
    on_s3.generate()
    assert len(on_s3.run.joinpath("events.jsonl").read_text().splitlines()) == events, "nothing was to do"
    on_s3.rerun("draw", parts=range(1, 2), replace=True)
    assert on_s3.files() == local.files()


def test_a_pruned_run_filtered_again_has_the_bytes_of_one_on_a_disk(tmp_path, switches, request):
    remote = SketchedRun(tmp_path / "remote", CAPTIONS, runs=f"s3://pairs/{request.node.name}[*?]")
    local = SketchedRun(tmp_path / "local", CAPTIONS)
    for run in (remote, local):
        run.generate()
        assert run.prune() == [("sketch", 0), ("sketch", 1)]
        run.generate("sieve.default.brightness=0.6")
    assert remote.files() == local.files()


def test_an_object_is_removed_by_its_name_and_no_other():
    folder = locate("s3://pairs/removed")
    names = ["a*", "a?", "[ab]", "a", "ab", "b", "a[b]", "%2A", "a#b", "a b"]
    for name in names:
        (folder / name).write_bytes(b"")
    for done, name in enumerate(names, 1):
        remove(folder / name)
        assert set(list_folder(folder)) == set(names[done:])
        remove(folder / name)  # a missing one is fine


@pytest.mark.parametrize("lines", [0, 40_000])
def test_events_are_added_to_an_object_of_any_size_and_name(lines):
    path = locate(f"s3://pairs/events-{lines}[*?]/events.jsonl")
    put(path, sealed_line({"unit": 0, "note": "x" * 100}) * lines)
    assert lines == 0 or path.stat().st_size > SMALL_OBJECT
    for number in (1, 2):
        events.append(path, unit=number)
    assert [event["unit"] for _, event in events.read(path)] == [*[0] * lines, 1, 2]


def test_answers_are_kept_there_in_groups():
    path = locate("s3://pairs/answers[*?]/00000.jsonl")
    killed = KeptAnswers(path)
    for number in range(HELD + 3):
        killed.put(f"{number}", f"answer {number}")
    again = KeptAnswers(path)
    assert [again.get(f"{n}") is not None for n in range(HELD + 3)] == [True] * HELD + [False] * 3
    killed.write()
    assert KeptAnswers(path).get(f"{HELD + 2}") == f"answer {HELD + 2}"


def test_the_collector_uploads_nothing():
    """Neither what was given up nor what failed. At the end of a process it would also wait for ever."""
    given_up = locate("s3://pairs/given-up/a")
    file = given_up.open("wb")
    file.write(b"half")
    refused = weakref.ref(file.__class__(given_up.fs, "nobody-s/x", "wb"))
    del file
    gc.collect()
    assert not list_folder(given_up.parent)
    assert refused() is None
    code = (
        "from pipeline.store.location import locate\n"
        "file = locate('s3://nobody-s/x').open('wb')\n"
        "file.write(b'x')\n"
        "import sys; sys.kept = file\n"  # lives until the end of the process
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=600)


def test_footers_are_kept_there_too_and_a_replaced_object_is_noticed(on_s3, monkeypatch):
    state = on_s3.generate()
    monkeypatch.setattr("pipeline.engine.state.MIN_FOOTERS_TO_CACHE", 1)
    first = RunState(state.folder, state.plan, list(state.steps.values()))
    first.scan()
    assert state.folder.footers.exists()
    expected = count_run(first)
    on_s3.rerun("draw", "write.greeting=kindly", parts=range(1, 2), replace=True)
    with monkeypatch.context() as patch:
        read = []
        patch.setattr(
            "pipeline.store.footers.read_footer",
            lambda path, at: read.append(path.name) or read_footer(path, at),
        )
        second = RunState(state.folder, state.plan, list(state.steps.values()))
        second.scan()
    assert 0 < len(read) < len(on_s3.files()) - 1
    lazily = RunState(state.folder, state.plan, list(state.steps.values()))
    assert count_run(second) == count_run(lazily) != expected
    remove(state.path(state.steps["write"], 0))
    second.scan()
    assert second.footer(state.steps["write"], 0) is None


def test_captions_are_read_from_there_and_the_commands_take_urls(on_s3):
    captions = locate("s3://pairs/captions.txt")
    write_text(captions, "a red cube\na blue cube\n\n")
    on_s3.content["captions"] = {"file": str(captions)}
    on_s3.save()
    on_s3.generate()
    told = CliRunner().invoke(app, ["status", str(on_s3.run)])
    assert told.exit_code == 0, told.output
    assert re.search(r"write\s+1/1", told.output), told.output
    assert CliRunner().invoke(app, ["status", "s3://pairs/nothing"]).exit_code != 0


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.full)])
def test_a_killed_driver_goes_on_to_the_same_bytes(on_s3, make_run, engine):
    whole = make_run("whole", CAPTIONS)
    whole.generate()
    on_s3.switch("wait 7")
    driver = on_s3.driver(engine=engine)
    wait_for_files(on_s3, "draw", 1, driver)
    with pytest.raises(UserError, match=f"being written by process {driver.pid} on .*delete"):
        on_s3.generate()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    on_s3.switch("wait 7", on=False)
    (kept,) = (on_s3.run / name for name in on_s3.files("draw"))
    written = kept.stat().st_mtime
    state = on_s3.generate()
    assert on_s3.files() == whole.files()
    assert kept.stat().st_mtime == written, "no committed part is done twice"
    assert_sum_is_exact(state)


def test_another_machines_lock_is_named_and_a_dead_process_of_this_one_is_taken_over(on_s3):
    lock = on_s3.run / ".lock"
    write_text(lock, '{"host": "elsewhere", "pid": 1}')
    with pytest.raises(UserError, match=r"process 1 on elsewhere.*delete s3://pairs/.*\.lock"):
        on_s3.generate()
    dead = locks._this_process() | {"pid": 2**22 + 1}
    write_text(lock, json.dumps(dead))
    on_s3.generate()
    assert not lock.exists()
    assert not [name for name in list_folder(on_s3.run) if name.startswith(".lock")]


def test_the_lock_of_a_run_that_was_copied_from_a_disk_holds_nothing(on_s3, make_run):
    local = make_run("local", CAPTIONS)
    local.generate()
    for path in files_below(local.run):
        put(on_s3.run / path.relative_to(local.run).as_posix(), path.read_bytes())
    assert (on_s3.run / ".lock").read_text() == str(os.getpid())
    on_s3.generate()
    assert not [name for name in list_folder(on_s3.run) if name.startswith(".lock")]
    for content in (b"", b"[]", b"\xff"):
        put(on_s3.run / ".lock", content)
        with pytest.raises(UserError, match=r"process unknown on unknown.*delete s3://.*\.lock"):
            on_s3.generate()


@pytest.mark.parametrize(
    "other", [{"machine": "another boot or container"}, {"machine": ""}, {"pid": os.getpid()}]
)
def test_a_lock_of_a_container_of_the_same_name_and_number_is_not_taken_over(on_s3, other):
    write_text(on_s3.run / ".lock", json.dumps(locks._this_process() | {"pid": 2**22 + 1} | other))
    with pytest.raises(UserError, match="If it is dead, delete"):
        on_s3.generate()


def test_of_two_that_take_over_a_dead_lock_one_becomes_the_owner(on_s3, monkeypatch):
    """The slower one has read the dead holder before the quicker one took over; then it may not remove."""
    folder = on_s3.run
    write_text(folder / ".lock", json.dumps(locks._this_process() | {"pid": 2**22 + 1}))
    really = locks._remove_dead
    owners = []

    def after_the_other(lock, holder, content):
        monkeypatch.setattr(locks, "_remove_dead", really)
        with locks.held(folder) as check:
            owners.append("quick")
            really(lock, holder, content)
            check()
            with pytest.raises(UserError, match="being written by"), locks.held(folder):
                owners.append("slow")

    monkeypatch.setattr(locks, "_remove_dead", after_the_other)
    with locks.held(folder):
        owners.append("slow, afterwards")
    assert owners == ["quick", "slow, afterwards"]


def test_a_deleted_lock_stops_its_owner(on_s3):
    with locks.held(on_s3.run) as check:
        check()
        remove(on_s3.run / ".lock")
        with locks.held(on_s3.run) as others:
            with pytest.raises(UserError, match=r"\.lock, by which this process holds the run, was deleted"):
                check()
            others()
        with pytest.raises(UserError):
            check()


def test_a_part_cut_short_is_made_again(on_s3):
    on_s3.generate()
    before = on_s3.files()
    part = on_s3.run / "draw" / "00001.parquet"
    part.write_bytes(part.read_bytes()[:-30])
    on_s3.generate()
    assert on_s3.files() == before
    assert pq.ParquetFile(arrow_source(part)).metadata.num_rows == 4


def test_a_missing_object_and_a_forbidden_one_are_not_told_as_damaged(monkeypatch):
    """The errors of a store have no number, as those of Arrow about damaged files."""
    path = locate("s3://pairs/no [*?]/such.parquet")
    for read in (lambda: read_table(path), lambda: read_part(path, 0, ["id"])):
        with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
            read()
    monkeypatch.setattr("pipeline.store.sealed.arrow_source", Mock(side_effect=PermissionError("Forbidden")))
    with pytest.raises(PermissionError, match=re.escape(str(path))):
        read_table(path)


def test_no_file_of_a_run_holds_a_credential(on_s3):
    on_s3.generate()
    for path in files_below(on_s3.run):
        assert SECRET.encode() not in path.read_bytes(), path


def test_every_command_reads_and_writes_there(toybox_run, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    runs, out = "s3://pairs/runs [1*?]", "s3://pairs/out [1*?]"
    locate(runs).fs.put(f"{toybox_run.folder}/", f"{locate(runs).path}/toybox", recursive=True)
    sets = [part for key in (f"runs={runs}", *SMALL) for part in ("--set", key)]
    run = f"{runs}/toybox"
    for command in (
        ["report", run, "--out", f"{out}/a.html"], ["report", run], ["inspect", run, "--out", f"{out}/b.png"],
        ["sweep", "manifests/toybox.yaml", *sets, "--sheet", f"{out}/c.png"],
        ["export", run, "--to", "datasets", "--out", f"{out}/d"],
        ["export", run, "--to", "webdataset", "--out", f"{out}/e"],
    ):  # fmt: skip
        told = CliRunner().invoke(app, command)
        assert told.exit_code == 0, (told.output, told.exception)
        assert f"wrote {command[-1] if '--out' in command or '--sheet' in command else run}" in told.output
    assert not Path("s3:").exists()
    assert locate(f"{out}/a.html").read_bytes() == locate(f"{run}/report.html").read_bytes()
    assert Image.open(locate(f"{out}/c.png").open("rb")).size[0] > 300
    names = {path.name for path in files_below(locate(out))}
    assert {"README.md", "train-00000-of-00001.parquet", "train-00000-of-00001.tar"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    audited = CliRunner().invoke(app, ["audit", run, "--against", f"{out}/d"])
    assert audited.exit_code == 0, audited.output  # its files lie in the folder's folder ``data``
    again = CliRunner().invoke(app, ["export", run, "--to", "datasets", "--out", f"{out}/d"])
    assert "exists already" in again.output
    local = CliRunner().invoke(
        app, ["export", str(toybox_run.folder), "--to", "datasets", "--out", str(tmp_path / "d")]
    )
    assert local.exit_code == 0
    for path in (tmp_path / "d").rglob("*.*"):
        if path.is_file():
            there = locate(f"{out}/d/{path.relative_to(tmp_path / 'd')}")
            assert there.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_an_out_there_is_whole_or_not_at_all_and_tried_before_the_work(make):
    with pytest.raises(UserError, match="--out s3://nobody-s/x"), make(locate("s3://nobody-s/x")):
        pytest.fail("the work was begun")

    def fail() -> None:
        place = locate("s3://pairs/half [*?]/way")
        with make(place) as made, made.file("a") if make is new_folder else nullcontext(made) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list_folder(locate("s3://pairs/half [*?]"))


def test_verdicts_are_kept_there_too_and_read_from_there():
    given = locate("s3://pairs/verdicts.csv")
    lines = [f"{number:032x},0,right" for number in range(3)]
    given.write_text("\n".join(["id,candidate,verdict", *lines]))
    book = Book(RunFolder("s3://pairs/runs/reviewed"), "f" * 32)
    for verdict in read_given(given, "anna"):
        book.add([verdict])
    book.take_back(book.read()[0].key, "anna")
    assert [int(verdict.id, 16) for verdict in book.read()] == [1, 2]
    with held_in_turn(book.folder.root / ".verdicts"), pytest.raises(HeldError):
        held_in_turn(book.folder.root / ".verdicts", patience_s=0).__enter__()


def test_an_unknown_protocol_is_named():
    with pytest.raises(UserError, match="nosuch"):
        locate("nosuch://bucket/runs")


def test_a_store_that_lets_nobody_in_is_one_message_and_check_works_without_it(on_s3, monkeypatch, capsys):
    from rich.console import Console

    from pipeline.audit.check import Machine, check
    from tests.pipeline.fake_stages import PLACED

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    locate("s3://pairs").fs.clear_instance_cache()
    with pytest.raises(UserError, match="cannot be reached: NoCredentials"):
        on_s3.generate()
    check(on_s3.manifest(), PLACED, Machine(8, 1), Console())
    assert "Cost: not known" in capsys.readouterr().out
    locate("s3://pairs").fs.clear_instance_cache()


def test_a_stage_that_stops_is_told_as_on_a_disk_and_not_as_a_store_out_of_reach(make_run):
    told = []
    for name, runs in (("local", {}), ("remote", {"runs": "s3://pairs/stopped"})):
        stopped = make_run(name, [f"broken {number}" for number in range(4)], **runs)
        with pytest.raises(StageError, match="write stopped: most rows of part 0 fail alike") as error:
            stopped.generate()
        told.append(str(error.value))
        assert "ValueError" in (stopped.run / "last_error.txt").read_text()
        stopped.switch("mended")
        assert_sum_is_exact(stopped.generate())
        stopped.switch("mended", on=False)
    assert told[0] == told[1]


def test_captions_of_a_folder_and_a_pattern_of_a_bucket_are_those_of_a_disk(tmp_path):
    there = locate("s3://pairs/captions")
    for name in "ba":
        content = gzip.compress(f"caption\n{name}\n".encode())
        (tmp_path / f"{name}.csv.gz").write_bytes(content)
        (there / f"{name}.csv.gz").write_bytes(content)
    (there / "README.md").write_text("notes")
    for path in (there, locate("s3://pairs/captions/*.csv.gz"), locate("s3://pairs/capt*/[ab].csv.gz")):
        assert read_captions(path, "caption").to_pylist() == ["a", "b"]
        assert content_hash(path) == content_hash(tmp_path)
    with pytest.raises(UserError, match=r"there is no file s3://pairs/none"):
        read_captions(locate("s3://pairs/none*.csv"), "caption")
