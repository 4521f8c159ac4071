"""What ``--out`` names is looked at before the work is done, and is there wholly or not at all."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.store import outputs
from pipeline.store.outputs import new_file, new_folder


def write(path: Path) -> None:
    with new_file(path) as file:
        file.write(b"new")


def fill(path: Path) -> None:
    with new_folder(path) as folder, folder.file("data/a.txt") as file:
        file.write(b"new")


@pytest.fixture
def places(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years")
    return tmp_path


@pytest.mark.parametrize(
    "place", ["file/x", "file/x/y", "full", "/proc/x.html", "/dev/null", "x" * 300, "/", "loop", "loop/x"]
)
@pytest.mark.parametrize("make", [new_file, new_folder])
def test_a_place_that_cannot_be_written_is_said_before_the_work(places, place, make):
    before = sorted(places.rglob("*"))
    with pytest.raises(UserError, match="--out"), make(places / place):
        pytest.fail("the work was begun")
    assert sorted(places.rglob("*")) == before
    assert (places / "full" / "thesis.txt").read_text() == "years"
    assert not Path("/dev/null").is_file()


def test_a_missing_folder_is_made(tmp_path):
    write(tmp_path / "a" / "b" / "c.html")
    fill(tmp_path / "d" / "e")
    assert (tmp_path / "a" / "b" / "c.html").read_bytes() == b"new"
    assert (tmp_path / "d" / "e" / "data" / "a.txt").read_bytes() == b"new"


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_work_that_fails_leaves_what_was_there(places, make):
    place = places / "file" if make is new_file else places / "empty"
    before = sorted(places.rglob("*"))

    def fail() -> None:
        with make(place) as made, made.file("a") if make is new_folder else nullcontext(made) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert sorted(places.rglob("*")) == before
    assert (places / "file").read_text() == "mine"


def test_a_full_disk_is_one_message(places, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs.NewFile, "commit", full)
    with pytest.raises(UserError, match=r"--out .*file: it cannot be written: No space left"):
        write(places / "file")
    assert (places / "file").read_text() == "mine"


def test_a_link_stays_and_its_target_is_written(places):
    (places / "link").symlink_to(places / "file")
    write(places / "link")
    assert (places / "link").is_symlink()
    assert (places / "file").read_bytes() == b"new"


def test_what_another_left_under_a_like_name_is_not_touched(places):
    for name in (".new.tmp", "new.tmp"):
        (places / name).mkdir()
        (places / name / "thesis.txt").write_text("years")
    fill(places / "new")
    for name in (".new.tmp", "new.tmp"):
        assert (places / name / "thesis.txt").read_text() == "years"


def test_a_new_folder_can_be_read_by_whom_the_mask_lets(tmp_path):
    before = os.umask(0o022)
    try:
        fill(tmp_path / "new")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert (tmp_path / "empty" / "data" / "a.txt").exists()
