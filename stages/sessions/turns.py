"""Sessions of several turns: the chain of stages is repeated, each turn starting from the previous result.

``instruct.2`` is the same stage as ``instruct``, but it reads from ``source.2``
(:mod:`stages.sessions.next_turn`) instead of the plan, and from ``mask.2`` instead of ``mask``.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stages import STAGES
from stages.base import Stage
from stages.placed import PlacedStage, first_turn, step_name
from stages.sessions.next_turn import Before

SOURCE = "source"
"""The stage that begins a turn. In later turns it takes the place of the plan."""


def unrolled(turns: int, sections: Collection[str] = ()) -> dict[str, PlacedStage]:
    """The stages of a run by step, in order: the first turn's, then ``source.2``, ``instruct.2``, ...

    Args:
        turns: edits in a row.
        sections: the manifest's sections; an optional stage runs if it has one.
    """
    runs = [name for name, stage in STAGES.items() if not stage.needs_section or name in sections]
    first = first_turn({name: STAGES[name] for name in runs})
    placed = list(first.values())
    for turn in range(2, turns + 1):
        placed.append(PlacedStage(SOURCE, Before, turn, _reads_of_turn_before(turn)))
        for name, of_first in first.items():
            if name != SOURCE:
                placed.append(PlacedStage(name, of_first.stage, turn, _reads_at(of_first.stage, turn)))
    return {each.step: each for each in placed}


def _writer(stage: str, turn: int) -> str:
    """The step that writes the columns of ``stage`` in a turn. For the plan: the step that begins it."""
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
    """The columns, by step, that the stage which begins ``turn`` reads."""
    reads = {_writer(name, turn - 1): list(columns) for name, columns in Before.reads.items()}
    if turn > 2:
        reads[_writer("plan", turn - 1)].append("history")
    return reads
