"""Sessions of several turns: the chain once more a turn, each from what the turn before ended with.

``instruct.2`` is the class that ``instruct`` is, told to read from ``source.2``
(:mod:`stages.sessions.next_turn`) what it read from the plan, and from ``mask.2`` what it read from ``mask``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stages import STAGES
from stages.sessions.next_turn import Before

SOURCE = "source"
"""The stage that begins a turn; it gives later turns what the plan gives to the first."""


def unrolled(turns: int) -> dict[str, Any]:
    """The stages of a run by name, in order: those of the first turn, ``source.2``, ``instruct.2``, ..."""
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
    """A stage's name in a turn; the plan of a later turn is the stage that begins it."""
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
    """The stage in a turn."""
    return type(stage.__name__, (stage,), {"turn": turn, "reads": reads, "__doc__": stage.__doc__})
