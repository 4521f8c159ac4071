"""What optional stages, and another option of a run, add to the published rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.score.metrics import SCORE_COLUMNS
from stages.shards.columns import DESCRIBE_COLUMNS, KEPT, KEPT_COLUMNS

_OF_THE_ASKED_EDIT = ("edited_object", "original_object", "T_inverse", "TI_inverse", "T_inverse_rejected")


def _judged(row: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    """The judge's words.

    If the judge wrote another instruction for a pair, T and the output caption are the judge's. The phrases
    of the asked edit and the way back do not describe the pair then, and are null.
    """
    judged = {"judge_reason": row["judge_reasons"][row["choice"]], "instruction_origin": "instruct"}
    other = row["recaptions"][row["choice"]]
    if other is None or not other["taken"]:
        return judged
    return {
        **judged,
        **dict.fromkeys(_OF_THE_ASKED_EDIT),
        "T": other["instruction"],
        "output_caption": other["output_caption"],
        "instruction_origin": "judge",
        "T_asked": columns["T"],
    }


def _kept(row: Mapping[str, Any], _columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in KEPT_COLUMNS}


def _described(row: Mapping[str, Any], _columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in DESCRIBE_COLUMNS}


@dataclass(frozen=True)
class Other:
    """What one of them adds."""

    reads: Mapping[str, Sequence[str]]
    """The columns that the shards stage reads for it, by stage."""
    columns: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = lambda row, columns: {}
    """From a row and its other columns. Scores are published without it."""


OTHERS: Mapping[str, Other] = {
    "describe": Other({"describe": list(DESCRIBE_COLUMNS)}, _described),
    "measure": Other({"measure": [SCORE_COLUMNS["measure"]]}),
    "judge": Other({"judge": [SCORE_COLUMNS["judge"], "judge_reasons", "recaptions"]}, _judged),
    KEPT: Other({"plan": list(KEPT_COLUMNS)}, _kept),
}
