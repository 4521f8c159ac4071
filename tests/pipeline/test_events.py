"""What a run's events say it took, and what a damaged line costs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store import events
from pipeline.store.events import Spent
from pipeline.store.sealed_lines import sealed_line

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
def path(tmp_path):
    return tmp_path / "events.jsonl"


def write(path, *lines: dict | bytes) -> None:
    path.write_bytes(b"".join(x if isinstance(x, bytes) else sealed_line(x) for x in lines))


def test_a_run_without_events_has_spent_nothing(path):
    assert events.spent(path)["edit"] == Spent()
    write(path)
    assert events.spent(path)["edit"] == Spent()


def test_seconds_are_added_up_by_stage(path):
    write(path, UNIT, UNIT | {"unit": 4, "wall": 0.5}, UNIT | {"stage": "mask"})
    assert events.spent(path) == {"edit": Spent(8, 3.0, 10.0, 9.0, 0.0), "mask": SPENT}


def test_other_events_are_not_counted(path):
    other = {"published": "ab", "stage": "edit", "rows": 99}
    write(path, other, UNIT, {"session": [1, {"a": "b"}]})
    assert events.spent(path) == {"edit": SPENT}
    write(path, other)
    assert events.spent(path) == {}


WHOLE = sealed_line(UNIT)


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"stage": "edit", "un',
        b"[1, 2]",
        b"\x00\x00",
        b'{"a": 1}{"b": 2}',
        b"nan",
        b"\xff\xfe",
        json.dumps(UNIT | {"rows": "four"}).encode(),
        WHOLE[:-1] + WHOLE[:-1],
        WHOLE.replace(b'"rows": 4', b'"rows": 5')[:-1],
    ],
)
def test_a_damaged_line_costs_itself_alone(path, garbage):
    write(path, UNIT, garbage + b"\n", UNIT | {"stage": "mask"})
    assert events.spent(path) == {"edit": SPENT, "mask": SPENT}
    assert [event["stage"] for _, event in events.read(path)] == ["edit", "mask"]
    assert events.count_damaged(path) == 1


@given(cut=st.integers(2, len(WHOLE)))
def test_a_line_cut_short_does_not_swallow_the_next(cut, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    write(path, UNIT, WHOLE[:-cut])
    events.append(path, **UNIT | {"stage": "mask"})
    assert events.spent(path) == {"edit": SPENT, "mask": SPENT}
    assert events.count_damaged(path) == (cut < len(WHOLE))


@given(bit=st.integers(0, 8 * len(WHOLE) - 1))
def test_no_flipped_bit_of_a_line_is_believed(bit, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    line = bytearray(WHOLE)
    line[bit // 8] ^= 1 << bit % 8
    write(path, bytes(line), UNIT | {"stage": "mask"})
    told = events.spent(path)
    assert "edit" not in told
    assert events.count_damaged(path) > 0


def test_reading_goes_on_where_it_ended(path):
    events.append(path, **UNIT)
    ((end, _),) = events.read(path)
    path.write_bytes(path.read_bytes() + WHOLE[:20])
    assert list(events.read(path, end)) == []
    path.write_bytes(path.read_bytes() + WHOLE[20:])
    assert [event["unit"] for _, event in events.read(path, end)] == [3]


def test_events_have_the_time(path):
    events.append(path, stage="edit")
    ((_, event),) = events.read(path)
    assert event["at"].endswith("+00:00")
