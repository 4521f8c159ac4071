import operator
from collections import Counter
from fractions import Fraction

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.inputs.planning import ensure_plan, rows_by_task
from pipeline.store.folder import RunFolder
from pipeline.store.plan import PLACE, read_plan
from pipeline.store.sealed import read_metadata, read_table
from pipeline.store.sealed_writer import SealedWriter
from stages.seeds import shape_of
from tests.pipeline.fake_stages import Write
from tests.pipeline.runs import ROOT, FakeRun

mixtures = st.dictionaries(st.text(min_size=1, max_size=4), st.floats(1e-3, 1e3), min_size=1, max_size=16)


@given(st.integers(0, 10_000), mixtures)
def test_quotas_are_exact_shares(rows, mixture):
    quota = rows_by_task(rows, mixture)
    assert sum(quota.values()) == rows
    total = sum(map(Fraction, mixture.values()))
    for task, weight in mixture.items():
        assert abs(quota[task] - rows * Fraction(weight) / total) < 1


def test_largest_remainder_gets_the_spare_row():
    assert rows_by_task(10, {"a": 1, "b": 1, "c": 1.5}) == {"a": 3, "b": 3, "c": 4}
    assert rows_by_task(5, {"a": 0.5, "b": 0.5}) == {"a": 3, "b": 2}


def plan_of(run: FakeRun, *overrides):
    run.run.mkdir(parents=True, exist_ok=True)
    plan = ensure_plan(RunFolder(run.run), run.manifest(*overrides))
    return plan, pq.read_table(run.run / "plan.parquet").to_pylist()


def test_rows_follow_the_mixture_and_the_file(run):
    plan, rows = plan_of(run)
    assert Counter(row["task"] for row in rows) == plan.tasks == {"remove": 10, "add": 5, "color": 5}
    assert [row["row"] for row in rows] == list(range(20))
    assert [row["caption"] for row in rows] == [f"a red cube number {i}" for i in range(20)]
    assert len({row["id"] for row in rows}) == len({row["seed"] for row in rows}) == 20
    assert plan.part_rows == (4,) * 5


def test_duplicates_are_counted_and_kept_once(make_run):
    captions = ["a", "b", "a", "c", "b", "a"]
    plan, rows = plan_of(make_run("drop", captions))
    assert [(row["row"], row["caption"]) for row in rows] == [(0, "a"), (1, "b"), (3, "c")]
    assert (plan.captions, plan.duplicates, plan.rows) == (6, 3, 3)
    plan, rows = plan_of(make_run("keep", captions), "captions.duplicates=keep")
    assert (len(rows), plan.duplicates) == (6, 0)
    assert len({row["id"] for row in rows}) == 6


def test_repeats_of_a_caption_lie_side_by_side_in_one_part(run):
    plan, rows = plan_of(run, "repeats=3", "rows_per_part=7", "rows=50")
    assert plan.part_rows == (6,) * 8 + (2,)
    assert [(row["row"], row["repeat"]) for row in rows] == [(i // 3, i % 3) for i in range(50)]
    assert len({row["seed"] for row in rows}) == 50


def test_same_manifest_plans_the_same_bytes(make_run):
    first, second = make_run("one"), make_run("two")
    plan_of(first)
    plan_of(second)
    assert first.files() == second.files()


def test_seed_shuffles_the_tasks(make_run):
    _, first = plan_of(make_run("one"))
    _, second = plan_of(make_run("two"), "seed=1")
    assert [row["task"] for row in first] != [row["task"] for row in second]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=1", "seed: 0 -> 1"),
        ("rows=5", "rows: None -> 5"),
        ("rows_per_part=5", "rows_per_part: 4 -> 5"),
        ("tasks.mixture.add=3", "tasks.mixture: "),
    ],
)
def test_another_plan_is_refused_with_the_difference(run, override, key):
    run.generate()
    before = run.inodes()
    with pytest.raises(UserError, match="another run name") as error:
        run.generate(override)
    assert key in str(error.value)
    assert run.inodes() == before


def test_changed_captions_are_refused(run):
    plan_of(run)
    (run.folder / "captions.txt").write_text("another caption\n")
    with pytest.raises(UserError, match=r"captions\.file \(content\)"):
        plan_of(run)


def test_a_plan_that_is_gone_is_not_made_anew_over_parts(run):
    run.generate()
    before = run.inodes()
    plan = run.run / "plan.parquet"
    content = plan.read_bytes()
    plan.unlink()
    with pytest.raises(UserError, match=r"plan.parquet is missing, but .* holds parts"):
        run.generate()
    assert not plan.exists()
    plan.write_bytes(content)
    run.generate()
    assert run.inodes() == {**before, "plan.parquet": plan.stat().st_ino}


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda content: b"", lambda content: b"x"])
def test_a_damaged_plan_stops_every_command(run, damage):
    from pipeline.views.run import open_state

    run.generate()
    before = run.inodes()
    plan = run.run / "plan.parquet"
    plan.write_bytes(damage(plan.read_bytes()))
    for command in (run.generate, lambda: open_state(run.run), lambda: run.rerun("draw")):
        with pytest.raises(UserError, match=r"plan\.parquet cannot be believed(.|\n)*another run name"):
            command()
    assert run.inodes() == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"tasks": {"remove": "x"}},
        {"tasks": {"remove": -5, "add": 25}},
        {"tasks": {"remove": 19}},
        {"tasks": ["remove"]},
        {"settings": None},
        {"captions": float("nan")},
        {"duplicates": True},
    ],
)
def test_a_plan_whose_counts_are_none_is_damaged_although_its_checksums_are_right(run, wrong):
    run.generate()
    path = run.run / "plan.parquet"
    table = read_table(path)
    record, _ = read_metadata(path, PLACE)
    with SealedWriter(path, table.schema) as writer:
        writer.write(table)
        writer.commit(PLACE, {**record, **wrong})
    with pytest.raises(UserError, match=r"plan\.parquet cannot be believed: its footer is not one of a plan"):
        read_plan(path)


def test_a_plan_of_another_run_stops(make_run):
    run, other = make_run("one"), make_run("two", captions=[f"a blue ball {i}" for i in range(20)])
    run.generate()
    other.generate()
    (run.run / "plan.parquet").write_bytes((other.run / "plan.parquet").read_bytes())
    with pytest.raises(UserError, match="was planned differently"):
        run.generate()


def test_a_part_whose_captions_fill_no_row_group_is_refused(run, monkeypatch):
    monkeypatch.setattr("pipeline.inputs.planning.MAX_GROUP_BYTES", 100)
    with pytest.raises(UserError, match="lower rows_per_part"):
        run.generate()
    assert not (run.run / "plan.parquet").exists()


def test_there_is_no_plan_in_an_empty_folder(tmp_path):
    assert read_plan(tmp_path / "plan.parquet") is None


def test_rows_of_one_shape_of_picture_lie_side_by_side_in_their_part(make_run, monkeypatch):
    """A part has the same rows, and full batches of each shape."""
    plain, rows = plan_of(make_run("one shape"), "rows_per_part=10")
    monkeypatch.setattr(Write.Config, "shapes", property(lambda _: 3))
    plan, sorted_rows = plan_of(make_run("three shapes"), "rows_per_part=10")
    assert plan.settings["shapes of pictures"] == 3
    assert "shapes of pictures" not in plain.settings
    for part in (slice(0, 10), slice(10, 20)):
        shapes = [shape_of(row["seed"], 3) for row in sorted_rows[part]]
        assert shapes == sorted(shapes)
        assert len(set(shapes)) > 1
        key = operator.itemgetter("row")
        assert sorted(sorted_rows[part], key=key) == rows[part]


def test_drawn_tasks_lie_before_computed_ones_in_their_part(make_run):
    """The edit stage fills its passes with copies: rows that need none must not take places in them."""
    mixture = "tasks.mixture={sketch: 1, remove: 1, segment: 1}"
    prompts = f"tasks.prompts={ROOT / 'prompts'}"
    _, rows = plan_of(make_run("mixed"), "rows_per_part=10", mixture, prompts)
    for part in (rows[:10], rows[10:]):
        tasks = [row["task"] for row in part]
        drawn = tasks.count("remove")
        assert 0 < drawn < 10
        assert set(tasks[:drawn]) == {"remove"}
        for group in (part[:drawn], part[drawn:]):
            assert [row["row"] for row in group] == sorted(row["row"] for row in group)
