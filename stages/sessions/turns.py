"""Sessions of several turns: the chain of stages is repeated, each turn starting from the previous result.

``instruct.2`` is the class of ``instruct``, but it reads from ``source.2`` (:mod:`stages.sessions.next_turn`)
instead of the plan, and from ``mask.2`` instead of ``mask``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stages import STAGES
from stages.sessions.next_turn import Before

SOURCE = "source"
"""The stage that begins a turn. In later turns it takes the place of the plan."""


def unrolled(turns: int) -> dict[str, Any]:
    """The stages of a run by name, in order: the first turn's, then ``source.2``, ``instruct.2``, ..."""
    stages: dict[str, Any] = dict(STAGES)
    for turn in range(2, turns + 1):
        reads = {name_at(name, turn - 1): list(columns) for name, columns in Before.reads.items()}
        if turn > 2:
            reads[name_at("plan", turn - 1)].append("history")
        stages[name_at(SOURCE, turn)] = _at(Before, turn, reads)
        for name, stage in STAGES.items():
            if name != SOURCE:
                stages[name_at(name, turn)] = _at(stage, turn, _reads_at(stage, turn))
    return stages


def name_at(stage: str, turn: int) -> str:
    """A stage's name in a turn. The plan of a later turn is the stage that begins the turn."""
    if turn == 1 or stage == "run":
        return stage
    return f"{SOURCE if stage == 'plan' else stage}.{turn}"


def _reads_at(stage: Any, turn: int) -> dict[str, list[str]]:
    reads: dict[str, list[str]] = {}
    for name, columns in stage.reads.items():
        reads.setdefault(name_at(name, turn), []).extend(columns)
    if stage.redraws:
        reads[name_at("plan", turn)].append("history")
    return reads


def _at(stage: Any, turn: int, reads: Mapping[str, Sequence[str]]) -> Any:
    """The stage's class for a turn."""
    return type(stage.__name__, (stage,), {"turn": turn, "reads": reads, "__doc__": stage.__doc__})
