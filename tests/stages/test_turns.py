"""Sessions: the chain unrolled, and what a later turn starts from."""

import pyarrow as pa
import pytest

from pipeline.manifest.steps import build_steps
from stages import STAGES
from stages.base import output_schema
from stages.sessions.next_turn import Before
from stages.sessions.turns import unrolled
from stages.source.stage import SourceConfig
from stages.tasks import Tasks
from tests.stages.tiny_shards import flat, given_row, mask
from tests.stages.tiny_tasks import tiny_task

TASKS = Tasks(
    {
        "remove": tiny_task("remove"),
        "add": tiny_task("add", direction="reverse"),
        "color": tiny_task("color"),
        "detect": tiny_task("detect", method="draw_box", candidates=()),
    }
)


def begun(turn: int, *rows: dict) -> list[dict]:
    stage = unrolled(turn)[f"source.{turn}"]
    table = stage.load(SourceConfig.model_construct(), TASKS)(pa.Table.from_pylist(list(rows)))
    assert table.schema.equals(output_schema(Before.schema))
    return table.to_pylist()


def row(task: str, number: int = 0, **columns) -> dict:
    made = {**given_row("remove", number), "task": task, "surroundings": "a beach", **columns}
    made["candidates"] = [{**c, "candidate": k} for k, c in enumerate(made["candidates"])]
    return made


def test_one_turn_is_the_chain_as_it_is():
    always = {name: stage for name, stage in STAGES.items() if not stage.needs_section}
    assert {name: placed.stage for name, placed in unrolled(1).items()} == always


def test_later_turns_read_from_their_own_stages_and_begin_with_the_turn_before():
    stages = unrolled(3)
    second = ["instruct.2", "task_check.2", "mask.2", "edit.2", "score.2", "filter.2", "select.2", "shards.2"]
    assert list(stages)[9:18] == ["source.2", *second]
    assert set(stages["edit.3"].reads) == {"source.3", "instruct.3", "mask.3"}
    assert set(stages["edit.3"].reads["source.3"]) == {"task", "seed", "source_image", "history"}
    assert set(stages["source.3"].reads) == {"source.2", "instruct.2", "mask.2", "edit.2", "filter.2"}
    assert "history" in stages["source.3"].reads["source.2"]
    assert set(stages["source.2"].reads) == {"plan", "instruct", "mask", "edit", "filter"}
    assert stages["shards.2"].reads["run"] == ["models"]
    assert (stages["shards"].turn, stages["shards.2"].turn) == (1, 2)
    assert STAGES["edit"].reads["plan"] == ["task", "seed"], "the first turn's are as they were"


def test_an_optional_stage_runs_if_it_has_a_section_and_others_read_it_then():
    without, stages = unrolled(2, sections={"score", "filter"}), unrolled(2, sections={"judge", "score"})
    assert "judge" not in without
    assert list(stages)[5:8] == ["score", "judge", "filter"]
    assert list(stages)[-5:-2] == ["score.2", "judge.2", "filter.2"]
    assert set(stages["judge.2"].reads) == {"source.2", "instruct.2", "mask.2", "edit.2"}
    for step, judge in (
        ("filter", "judge"),
        ("shards", "judge"),
        ("filter.2", "judge.2"),
        ("shards.2", "judge.2"),
    ):
        assert "judge_scores" in stages[step].reads[judge]
        assert not any(name.startswith("judge") for name in without[step].reads)
    assert "judge_quality" in stages["shards.2"].stage.schema.names
    assert "judge_quality" not in without["shards"].stage.schema.names


def test_what_is_published_decides_no_other_stage_s_rows():
    stages = unrolled(2)
    configs = {
        name: STAGES["shards"].Config() if name.startswith("shards") else SourceConfig.model_construct()
        for name in stages
    }
    steps = {step.name: step for step in build_steps(stages, configs, dict.fromkeys(stages, "print"))}
    previous = {name: step.previous for name, step in steps.items()}
    assert previous["source.2"] == "select"
    assert (previous["shards"], previous["shards.2"]) == ("select", "select.2")
    assert previous["instruct.2"] == "source.2"


@pytest.mark.parametrize(("task", "level"), [("remove", 21), ("add", 10)])
def test_a_turn_begins_with_the_published_target_and_its_caption(task, level):
    [made] = begun(2, row(task))
    assert made["source_image"] == flat(level), "of a reverse task the anchor is published as Tar"
    assert made["caption"] == "the output caption"
    assert made["task"] in ("remove", "color"), "forward, by Prompt-to-Prompt"
    assert made["seed"] != row(task)["seed"]
    [turn] = made["history"]
    assert (turn["task"], turn["candidate"], turn["seed"]) == (task, 1, row(task)["seed"])
    assert (turn["caption"], turn["soft_mask"]) == ("the caption", mask(128))


def test_the_history_grows_by_a_turn():
    [second] = begun(2, row("remove"))
    [third] = begun(3, row("color", history=second["history"], caption="the output caption"))
    assert [turn["task"] for turn in third["history"]] == ["remove", "color"]


def test_tasks_and_seeds_are_the_row_s_own():
    rows = [row("remove", number) for number in range(40)]
    together = begun(2, *rows)
    assert together == [begun(2, one)[0] for one in rows]
    assert {made["task"] for made in together} == {"remove", "color"}
    assert len({made["seed"] for made in together}) == len(rows)


def test_a_session_ends_with_a_picture_that_was_not_sampled():
    [made] = begun(2, row("detect"))
    assert (made["status"], made["reason"]) == ("rejected", "session_ended")


def test_a_run_without_a_task_for_later_turns_says_so():
    tasks = Tasks({name: TASKS[name] for name in ("add", "detect")})
    with pytest.raises(ValueError, match=r"turns: .* forward; tasks\.mixture has add, detect"):
        Before(SourceConfig.model_construct(), tasks)
