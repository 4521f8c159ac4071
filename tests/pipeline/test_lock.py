"""The lock of a run on a disk, where another program has left something under its name."""

import fcntl

import pytest

from pipeline.store.lock import HeldError, held


def test_a_link_is_refused_and_what_it_leads_to_is_left_alone(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(other)
    with pytest.raises(OSError, match=r"run/\.lock"), held(tmp_path / "run"):
        pytest.fail("the run was locked")
    assert other.read_text() == "mine"


def test_a_folder_in_its_place_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(IsADirectoryError, match=r"\.lock"), held(tmp_path):
        pytest.fail("the run was locked")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00 17", b"1" * 10**6], ids=["none", "binary", "long"])
def test_whatever_the_holder_has_written_the_others_are_told_shortly(tmp_path, content):
    (tmp_path / ".lock").write_bytes(content)
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(HeldError, match="is being written by process") as error, held(tmp_path):
            pytest.fail("the run was locked")
    assert len(str(error.value)) < 200 + len(str(tmp_path))
    with held(tmp_path) as check:
        check()
