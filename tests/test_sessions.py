"""Sessions of two turns in two rounds by the toybox: real pictures, each turn from what was published."""

import pandas
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.api import open_run
from pipeline.audit.regenerate import regenerate
from pipeline.cli import app
from pipeline.engine.ledger import count_run, published
from pipeline.views.gallery import read_shown
from pipeline.views.outcomes import survey
from pipeline.views.run import open_state
from stages.sessions.turns import unrolled
from stages.tasks import load_tasks
from tests.toybox_runs import ROOT, Run

SETTINGS = (
    *("rows=10", "rows_per_part=10", "turns=2", "rounds=2", "edit.pixel_threshold.kernel=0.05"),
    "tasks.mixture={remove: 1, add: 1, color: 1, local: 1, detect: 1}",
    *("filter.default.clip_text_input=0.7", "filter.default.clip_text_output=0.8"),  # many a second turn
    *("filter.default.clip_direction=0.7", "filter.default.present=0.2"),
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


def rows_of(run: Run, *steps: str) -> list[dict]:
    files = (pq.read_table(run.folder / step / "00000.parquet", partitioning=None) for step in steps)
    return [row for file in files for row in file.to_pylist()]


def kept(run: Run, step: str) -> set[str]:
    return {row["id"] for row in rows_of(run, step) if row["status"] == "kept"}


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
        assert second.stage == "select.2"
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
    assert counts["select"].given == counts["filter"].kept + counts["filter.r2"].kept
    assert counts["source.2.r2"].given == counts["filter.2"].rejected
    assert counts["source.2"].rejected["detect"] == counts["select"].kept["detect"]
    assert published(state, counts.values()) == len(shards(run))


def test_a_row_of_a_later_round_is_published_with_its_own_seed_mask_and_candidate(run):
    first = shards(run).query("turn == 1").set_index("session")
    later = kept(run, "filter.r2") & set(first.index)
    assert later
    begun, masks = ({row["id"]: row for row in rows_of(run, step)} for step in ("source.r2", "mask.r2"))
    planned = {row["id"]: row["seed"] for row in pq.read_table(run.folder / "plan.parquet").to_pylist()}
    for session, pair in first.iterrows():
        seed = begun[session]["seed"] if session in later else planned[session]
        assert pair["seed"] == seed
        if session in later:
            assert begun[session]["round"] == 2
            assert [list(box) for box in pair["boxes"]] == masks[session]["boxes"]
    drawn = [c["candidate"] for row in rows_of(run, "edit.r2") for c in row["candidates"]]
    assert 2 <= max(drawn) <= 3, "numbers go on where the first round's two candidates ended"


def test_a_later_turn_that_is_rejected_is_drawn_again_from_the_same_picture(run):
    again, first = ({row["id"]: row for row in rows_of(run, step)} for step in ("edit.2.r2", "edit.2"))
    assert again
    for session, row in again.items():
        assert row["anchor"] == first[session]["anchor"]
        assert {c["mask"] for c in row["candidates"]} != {c["mask"] for c in first[session]["candidates"]}


def test_earlier_turns_are_drawn_again_as_they_were(run):
    drawn = rows_of(run, "edit.2", "edit.2.r2")
    assert {row["id"] for row in drawn} & kept(run, "filter.r2"), "also a first turn of the second round"
    assert all(row["source_drift"] < 0.02 for row in drawn), "of a mean difference in [0,1]"
    added = {
        row["id"] for row in rows_of(run, "source.2") if row["history"] and row["history"][0]["task"] == "add"
    }
    assert all(row["source_drift"] < 0.004 for row in drawn if row["id"] in added), (
        "the anchor, but for rounding"
    )


def test_both_versions_of_a_candidate_are_scored(run):
    for stage, scores in (("edit", "score"), ("edit.2", "score.2"), ("edit.2.r2", "score.2.r2")):
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
    before = run.files("source.2", "edit.2", "edit.2.r2", "shards.2")
    assert before
    run.generate_here(*SETTINGS)
    assert run.files("source.2", "edit.2", "edit.2.r2", "shards.2") == before
    ended = shards(run).query("turn == 2").session
    session = next(session for session in ended if session in kept(run, "filter.r2"))
    state, manifest = open_state(str(run.folder)), open_run(run.folder).manifest
    verdicts = list(regenerate(manifest, unrolled(2, 2), state, session))
    steps = [step for step in state.steps.values() if not step.publishes and not step.wide]
    held = [step.name for step in steps if session in {row["id"] for row in rows_of(run, step.name)}]
    assert [verdict.stage for verdict in verdicts] == held
    assert len(held) >= 7 + 5 + 7, "seven stages a turn, and the second round of the first"
    apart = {verdict.stage.partition(".")[0] for verdict in verdicts if verdict.different}
    assert apart <= {"score"}, "last bits: the detector pads a phrase to the longest one of its batch"
