"""What a run's events say it took."""

import json

import pytest

from pipeline.folder import RunFolder, Spent

UNIT = {
    "stage": "edit",
    "unit": 3,
    "rows": 4,
    "wall": 2.5,
    "seconds": 5,
    "cpu_seconds": 4.5,
    "gpu_seconds": 0.0,
}
SPENT = Spent(4, 2.5, 5.0, 4.5, 0.0)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def write(folder: RunFolder, *lines: str) -> None:
    folder.events.write_text("".join(line + "\n" for line in lines))


def test_a_run_without_events_has_spent_nothing(folder):
    assert folder.spent()["edit"] == Spent()
    write(folder)
    assert folder.spent()["edit"] == Spent()


def test_seconds_are_added_up_by_stage(folder):
    write(folder, *map(json.dumps, [UNIT, UNIT | {"unit": 4, "wall": 0.5}, UNIT | {"stage": "mask"}]))
    assert folder.spent() == {"edit": Spent(8, 3.0, 10.0, 9.0, 0.0), "mask": SPENT}


def test_other_events_are_not_counted(folder):
    other = {"finished": "edit", "digest": "ab", "stage": "edit", "rows": 99}
    write(folder, json.dumps(other), json.dumps(UNIT), json.dumps({"session": [1, {"a": "b"}]}))
    assert folder.spent() == {"edit": SPENT}
    write(folder, json.dumps(other))
    assert folder.spent() == {}


def test_events_of_earlier_versions_lack_some_seconds(folder):
    write(folder, json.dumps({key: UNIT[key] for key in ("stage", "unit", "rows", "wall", "seconds")}))
    assert folder.spent() == {"edit": Spent(4, 2.5, 5.0)}


@pytest.mark.parametrize(
    "garbage", ['{"stage": "edit", "un', "[1, 2]", "\x00\x00", '{"a": 1}{"b": 2}', "nan"]
)
def test_a_line_cut_short_costs_itself_alone(folder, garbage):
    write(folder, json.dumps(UNIT), garbage, json.dumps(UNIT | {"stage": "mask"}))
    assert folder.spent() == {"edit": SPENT, "mask": SPENT}
    write(folder, garbage)
    assert folder.spent() == {}
