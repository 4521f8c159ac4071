"""Sessions of several turns: the chain once more a turn, each from what the turn before ended with.

``instruct.2`` is the same stage as ``instruct``. It reads from ``source.2``
(:mod:`stages.sessions.next_turn`) what it read from the plan in the first turn, and from ``mask.2`` what it
read from ``mask``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stages import STAGES
from stages.base import Stage
from stages.placed import PlacedStage, first_turn, step_name
from stages.sessions.next_turn import Before

SOURCE = "source"
"""The stage that begins a turn; it gives later turns what the plan gives to the first."""


def unrolled(turns: int) -> dict[str, PlacedStage]:
    """The stages of a run by step, in order: those of the first turn, ``source.2``, ``instruct.2``, ..."""
    placed = list(first_turn(STAGES).values())
    for turn in range(2, turns + 1):
        placed.append(PlacedStage(SOURCE, Before, turn, _reads_of_turn_before(turn)))
        for name, stage in STAGES.items():
            if name != SOURCE:
                placed.append(PlacedStage(name, stage, turn, _reads_at(stage, turn)))
    return {each.step: each for each in placed}


def _writer(stage: str, turn: int) -> str:
    """The step that writes in a turn what ``stage`` writes in the first; the plan's is the turn's first."""
    if stage == "run":
        return stage
    return step_name(SOURCE if stage == "plan" and turn > 1 else stage, turn)


def _reads_at(stage: type[Stage[Any]], turn: int) -> Mapping[str, Sequence[str]]:
    reads: dict[str, list[str]] = {}
    for name, columns in stage.reads.items():
        reads.setdefault(_writer(name, turn), []).extend(columns)
    if stage.redraws:
        reads[_writer("plan", turn)].append("history")
    return reads


def _reads_of_turn_before(turn: int) -> Mapping[str, Sequence[str]]:
    """What the stage that begins ``turn`` reads."""
    reads = {_writer(name, turn - 1): list(columns) for name, columns in Before.reads.items()}
    if turn > 2:
        reads[_writer("plan", turn - 1)].append("history")
    return reads
