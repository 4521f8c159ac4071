"""Sessions of two turns by the toybox: real pictures, each turn from what the one before published."""

import pandas
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.engine.ledger import count_run, published
from pipeline.views.gallery import read_shown
from pipeline.views.outcomes import survey
from pipeline.views.run import open_state
from stages.tasks import load_tasks
from tests.toybox_runs import ROOT, Run

SETTINGS = (
    *("rows=10", "rows_per_part=10", "turns=2", "edit.pixel_threshold.kernel=3"),
    "tasks.mixture={remove: 1, add: 1, color: 1, local: 1, detect: 1}",
    *("filter.default.clip_text_input=0.7", "filter.default.clip_text_output=0.8"),  # many a second turn
    *("filter.default.clip_direction=0.5", "filter.default.present=0.2"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    made = Run(tmp_path_factory.mktemp("sessions"))
    made.generate_here(*SETTINGS)
    return made


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def shards(run: Run) -> pandas.DataFrame:
    return pandas.read_parquet(sorted(run.folder.glob("shards*/train-*.parquet")))


def rows_of(run: Run, stage: str) -> list[dict]:
    return pq.read_table(run.folder / stage / "00000.parquet", partitioning=None).to_pylist()


def test_a_later_turn_edits_what_the_turn_before_published(run):
    turns = shards(run)
    first, second = (turns[turns.turn == turn].set_index("session") for turn in (1, 2))
    assert len(second) >= 2
    for session, pair in second.iterrows():
        before = first.loc[session]
        assert pair["I"]["bytes"] == before["Tar"]["bytes"]
        assert pair["input_caption"] == before["output_caption"]
        assert pair["Tar"]["bytes"] != pair["I"]["bytes"]
        assert before["method"] == "prompt2prompt"


def test_the_gallery_shows_each_turn_with_its_own_pictures(run):
    state = open_state(str(run.folder))
    found = survey(state, [0])
    assert {row.turn for row in found} == {1, 2}
    assert len([row for row in found if row.turn == 1]) == state.plan.rows
    begun = [row for row in rows_of(run, "source.2") if row["status"] == "kept"]
    assert {row.id: row.task for row in found if row.turn == 2} == {row["id"]: row["task"] for row in begun}
    tasks = load_tasks(ROOT / "prompts")
    shown = {(row.id, row.turn): row for row in read_shown(state, tasks, {}, 0, found)}
    assert len(shown) == len(found)
    for session, pair in shards(run).query("turn == 2").set_index("session").iterrows():
        first, second = shown[session, 1], shown[session, 2]
        assert second.input == first.target
        assert (second.instruction, second.caption) == (pair["T"], first.output_caption)
        assert second.stage.endswith(".2")
    (only, *_) = [row for row in found if row.turn == 2]
    (alone,) = read_shown(state, tasks, {}, 0, [only])
    assert (alone.id, alone.turn) == (only.id, 2)


def test_every_stage_of_every_turn_accounts_for_its_rows(run):
    state = open_state(str(run.folder))
    counts = {count.name: count for count in count_run(state)}
    for count in counts.values():
        judged = count.kept.total() + count.rejected.total() + count.failed.total()
        assert count.given.total() == judged, count.name
        assert not count.failed.total(), count.name
    assert counts["source.2"].given == counts["select"].kept
    assert counts["source.2"].rejected["detect"] == counts["select"].kept["detect"]
    assert published(state, counts.values()) == len(shards(run))


def test_earlier_turns_are_drawn_again_as_they_were(run):
    drawn = rows_of(run, "edit.2")
    assert drawn
    assert all(row["source_drift"] < 0.02 for row in drawn), "of a mean difference in [0,1]"
    added = {
        row["id"] for row in rows_of(run, "source.2") if row["history"] and row["history"][0]["task"] == "add"
    }
    assert all(row["source_drift"] < 0.004 for row in drawn if row["id"] in added), (
        "the anchor, but for rounding"
    )


def test_both_versions_of_a_candidate_are_scored(run):
    for stage, scores in (("edit", "score"), ("edit.2", "score.2")):
        scored = {row["id"]: row["scores"] for row in rows_of(run, scores)}
        for row in rows_of(run, stage):
            if row["candidates"][0]["mask"] != "none":
                assert [c["thresholded"] for c in row["candidates"]] == [False, True] * (
                    len(row["candidates"]) // 2
                )
                assert len(scored[row["id"]]) == len(row["candidates"])


def test_a_session_is_valid_complete_and_equal_when_made_again(run):
    invoke = CliRunner().invoke
    assert invoke(app, ["validate", str(run.folder)]).exit_code == 0
    before = run.files("source.2", "edit.2", "shards.2")
    assert before
    run.generate_here(*SETTINGS)
    assert run.files("source.2", "edit.2", "shards.2") == before
    session = shards(run).query("turn == 2").session.iloc[0]
    told = invoke(app, ["regenerate", str(run.folder), session])
    assert told.exit_code == 0, told.output
    assert told.output.count("equal to the bit") == 14, "seven stages a turn"
