"""Sessions of several turns: the chain of stages is repeated, each turn starting from the previous result.

``instruct.2`` is the same stage as ``instruct``, but it reads from ``source.2``
(:mod:`stages.sessions.next_turn`) instead of the plan, and from ``mask.2`` instead of ``mask``.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stages import STAGES
from stages.base import Stage
from stages.placed import PlacedStage, first_turn, step_name
from stages.rounds.again import SourceAgain, TurnAgain
from stages.rounds.unroll import Rounds
from stages.sessions.next_turn import Before

SOURCE = "source"
"""The stage that begins a turn. In later turns it takes the place of the plan."""


def unrolled(
    turns: int, rounds: int = 1, sections: Collection[str] = (), traits: Collection[str] = ()
) -> dict[str, PlacedStage]:
    """The stages of a run by step, in order: the first turn's, then ``source.2``, ``instruct.2``, ...

    With several rounds, each turn repeats its drawing stages (:mod:`stages.rounds`). In the first turn these
    begin with the source picture. In later turns the picture is given, so they begin with the edit.

    Args:
        turns: edits in a row.
        rounds: how often a row is drawn at most.
        sections: the manifest's sections; an optional stage runs if it has one.
        traits: what stages can see beside them besides other stages (``Stage.beside``).
    """
    runs = {name: stage for name, stage in STAGES.items() if not stage.needs_section or name in sections}
    of_first = first_turn(runs, traits)
    before = Rounds(1, rounds, _from("source", runs), SOURCE, "plan")
    placed = before.unroll(list(of_first.values()), SourceAgain.beside(traits))
    for turn in range(2, turns + 1):
        begin = before.after(PlacedStage(SOURCE, Before, turn, _reads_of_turn_before(turn)))
        others = [
            PlacedStage(name, each.stage, turn, _reads_at(each.stage, turn))
            for name, each in of_first.items()
            if name != SOURCE
        ]
        before = Rounds(turn, rounds, _from("edit", runs), SOURCE, step_name(SOURCE, turn))
        placed += before.unroll([begin, *others], TurnAgain)
    return {each.step: each for each in placed}


def _from(first: str, stages: Collection[str]) -> tuple[str, ...]:
    """The names of the stages from ``first`` to the filter, whose decision ends a round."""
    names = list(stages)
    return tuple(names[names.index(first) : names.index("filter") + 1])


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
