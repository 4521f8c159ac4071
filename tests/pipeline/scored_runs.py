"""Runs whose stages before the filter are imitated, with scores that follow a known law; all else is real."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import stages
import stages.sessions.turns
from pipeline.api import Run, generate
from stages import STAGES
from stages.base import Stage, kept, to_table
from stages.rounds.again import SourceAgain
from stages.score.metrics import MEASURED
from tests.pipeline.runs import ROOT
from tests.stages.tiny_shards import given_row

BEFORE_FILTER = ("instruct", "task_check", "source", "mask", "edit", "score")
ROWS = 160


def quality(seed: int) -> np.ndarray:
    """The hidden quality of a row's two candidates; a candidate of more than -0.85 is right."""
    return np.random.default_rng(seed % 2**32).normal(size=2)


def is_right(seed: int, candidate: int) -> bool:
    return bool(quality(seed)[candidate] > -0.85)


def _scores(seed: int) -> list[dict[str, float | None]]:
    noise = np.random.default_rng(seed % 2**31 + 7).normal(size=(2, 3))
    return [
        {
            **dict.fromkeys(MEASURED),
            "clip_text_input": 0.9,
            "clip_text_output": 0.87 + 0.03 * (q + 0.3 * a),
            "clip_direction": 0.66 + 0.05 * b,  # noise, near its bound of 0.65
            "clip_image": 0.7 + 0.05 * c,
            "change_inside": 0.2,
            "change_outside": 0.001,
            "change_outside_raw": 0.01,
            "present": 0.5,
            "present_overlap": 0.9,
            "absent": 0.01,
            "mask_fit": 0.95,
            "clipped": 0.0,
            "contrast": 0.2,
            "roughness": 0.2,
        }
        for q, (a, b, c) in zip(quality(seed), noise, strict=True)
    ]


def _imitation(name: str, real: type[Stage[Any]]) -> type[Stage[Any]]:
    """A stage with the columns of a real one, which loads no model."""

    class Imitation(real):
        reads = {**real.reads, "plan": ["caption", "task", "seed"]}

        def __init__(self, config: Any, tasks: Any, *, turn: int = 1) -> None:
            Stage.__init__(self, config, tasks, turn=turn)

        @classmethod
        def problems(cls, config: Any, tasks: Any) -> tuple:
            return ()

        def stream(self, batches: Any) -> None:
            return None

        def __call__(self, rows: pa.Table) -> pa.Table:
            decisions = []
            for row in rows.to_pylist():
                columns = {**given_row("remove"), **row, "checked_task": row["task"]}
                columns |= {"candidates": [dict(columns["candidates"][0]) for _ in range(2)]}
                columns |= {"scores": _scores(row["seed"]), "anchor_hash": row["seed"] % 2**62}
                columns["candidate_hashes"] = [row["seed"] % 2**61, row["seed"] % 2**60]
                decisions.append(kept(**columns))
            return to_table(rows["id"].to_pylist(), decisions, self.schema)

    return Imitation


def scored_run(folder: Path, patch: pytest.MonkeyPatch, *settings: str) -> Run:
    """A finished run of ``manifests/toybox.yaml`` in ``folder``, made in a second."""
    for name in BEFORE_FILTER:
        patch.setitem(STAGES, name, _imitation(name, stages.STAGES[name]))
    again = type("ImitationAgain", (SourceAgain, STAGES["source"]), {})  # in a later round, from another seed
    patch.setattr(stages.sessions.turns, "SourceAgain", again)
    return generate(
        ROOT / "manifests" / "toybox.yaml",
        settings=settings_of(folder, *settings),
        engine="local",
        verbosity="quiet",
    )


def settings_of(folder: Path, *settings: str) -> list[str]:
    shared = [
        f"runs={folder}",
        f"rows={ROWS}",
        "repeats=2",
        "rows_per_part=80",
        "tasks.mixture={color: 1, local: 1}",
    ]
    return [*shared, "select.near_duplicate_bits=null", *settings]
