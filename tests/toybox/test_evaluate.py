"""The evaluation judges by the pictures alone: here they are renders, and right or wrong by design."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.engine.state import RunState
from pipeline.manifest.lockfile import write_lock
from pipeline.manifest.manifest import read_manifest, tasks_of
from pipeline.manifest.steps import Step
from pipeline.store.folder import RunFolder
from pipeline.store.parts import footer_content
from pipeline.store.plan import PLACE, SCHEMA, read_plan
from pipeline.store.sealed_writer import SealedWriter
from stages import STAGES
from stages.pictures.png import encode_png
from tests.pipeline.runs import ROOT
from toybox.evaluation.evaluate import held_out_scenes
from toybox.evaluation.evaluate_edits import judge_run
from toybox.evaluation.judge import FILE, Judge
from toybox.world.reading import Content, Look, agreement, content_of
from toybox.world.render import render
from toybox.world.scene import Thing, caption, is_held_out, sample_scene, without

TRAINED = pytest.mark.skipif(not FILE.exists(), reason="trained by `make toybox`")
SCENE = replace(
    sample_scene(np.random.default_rng(1), 1),
    things=(Thing("ball", "red", "plain", 0.5, 0.6, 0.25),),
    background="meadow",
    time="day",
)
BLUE = replace(SCENE, things=(replace(SCENE.things[0], color="blue"),))
STRIPED = replace(SCENE, things=(replace(SCENE.things[0], texture="striped"),))
EMPTY = without(SCENE, 0)


def write_run(folder, rows):
    """A run's files as they are read; ``rows``: (task, caption, output caption, anchor, targets, choice)."""
    ids = [f"row{k}" for k in range(len(rows))]
    plan = {
        "id": ids,
        "row": range(len(rows)),
        "caption": [row[1] for row in rows],
        "task": [row[0] for row in rows],
        "repeat": [0] * len(rows),
        "seed": [0] * len(rows),
    }
    tasks = {row[0]: sum(r[0] == row[0] for r in rows) for row in rows}
    with SealedWriter(folder / "plan.parquet", SCHEMA) as writer:
        writer.write(pa.table({name: list(values) for name, values in plan.items()}, schema=SCHEMA))
        writer.commit(PLACE, {"settings": {}, "captions": len(rows), "duplicates": 0, "tasks": tasks})
    kept = ["kept"] * len(rows)
    png = [encode_png(render(row[3]).image) for row in rows]
    candidates = [[{"image": encode_png(render(scene).image)} for scene in row[4]] for row in rows]
    stages = {
        "instruct": {"output_caption": [row[2] for row in rows], "status": kept},
        "edit": {"anchor": png, "candidates": candidates, "status": kept},
        "filter": {
            "choice": [row[5] for row in rows],
            "status": ["kept" if row[5] is not None else "rejected" for row in rows],
        },
    }
    names = list(stages)
    steps = [Step(name, name, tuple(names[:place])) for place, name in enumerate(names)]
    run, made = RunFolder(folder), read_plan(folder / "plan.parquet")
    assert made is not None
    for step in steps:
        table = pa.table({"id": ids, "reason": [""] * len(ids), **stages[step.stage]})
        state = RunState(run, made, steps)
        counts = Counter(
            (row[0], status, "") for row, status in zip(rows, stages[step.stage]["status"], strict=True)
        )
        with SealedWriter(state.path(step, 0), table.schema) as writer:
            writer.write(table)
            writer.commit(
                state.place(step, 0), footer_content(step.fingerprint, state.inputs(step, [0]), counts)
            )
    manifest = read_manifest(ROOT / "manifests/toybox.yaml", [], STAGES)
    write_lock(run.lock, manifest, tasks_of(manifest), steps, {name: {} for name in names}, [])


@TRAINED
def test_edits_are_right_when_both_pictures_show_what_their_captions_say(tmp_path):
    red, blue, striped, empty = (caption(scene) for scene in (SCENE, BLUE, STRIPED, EMPTY))
    write_run(
        tmp_path,
        [
            ("color", red, blue, SCENE, [BLUE, SCENE], 0),
            ("color", red, blue, BLUE, [BLUE, BLUE], 1),
            ("texture", red, striped, SCENE, [STRIPED, SCENE], None),
            ("add", empty, red, SCENE, [EMPTY], 0),
            ("remove", red, "a purple elephant", SCENE, [EMPTY], None),
            ("detect", red, red, SCENE, [SCENE], 0),
        ],
    )
    figures = judge_run(tmp_path, Judge.load())
    color = figures["tasks"]["color"]
    assert color["right_by_candidate"] == [0.5, 0.0], "the second row's input is blue already"
    assert (color["planned"], color["drawn"], color["kept"], color["kept_right"]) == (2, 4, 2, 0.5)
    assert figures["tasks"]["texture"]["right_by_candidate"] == [1.0, 0.0]
    assert figures["tasks"]["texture"]["kept_right"] is None
    assert figures["tasks"]["add"]["right"] == 1.0, "the object is in the target of a reversed task"
    assert figures["tasks"]["remove"]["right"] == 0.0, "a caption that is not of the world is wrong"
    assert "detect" not in figures["tasks"]
    assert figures["all"]["drawn"] == 8


def test_agreement_counts_each_attribute():
    asked = [Content((Look("ball", "red", "plain"),), "meadow", "day")] * 2
    seen = [asked[0], Content((Look("ball", "blue", "plain"),), "meadow", "night")]
    figures = agreement(seen, asked)
    assert (figures["shapes"], figures["colors"], figures["shapes_and_colors"]) == (1.0, 0.5, 0.5)
    assert (figures["background"], figures["time"]) == (1.0, 0.5)


def test_scenes_to_measure_on_are_held_out():
    scenes, captions = held_out_scenes(2, 8)
    assert all(is_held_out(scene) and len(scene.things) == 2 for scene in scenes)
    assert len({*captions}) > 1
    assert [content_of(scene) for scene in scenes] == [
        content_of(scene) for scene in held_out_scenes(2, 8)[0]
    ]
