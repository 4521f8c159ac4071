"""Marks from 1 to 5 that the judge stage gives. Every task has them in a run with that stage."""

from stages.score.evidence import Evidence
from stages.score.metric import MARK, Metric


def _given_by_the_judge(evidence: Evidence) -> None:
    return None


METRICS = (
    Metric(
        "judge_instruction",
        "the judge's mark from 1 to 5: does Tar show what the instruction asks for?",
        "judge",
        _given_by_the_judge,
        MARK,
        sense="more",
    ),
    Metric(
        "judge_consistency",
        "the judge's mark from 1 to 5: did everything else stay as in I?",
        "judge",
        _given_by_the_judge,
        MARK,
        sense="more",
    ),
    Metric(
        "judge_quality",
        "the judge's mark from 1 to 5: is Tar a picture without damage?",
        "judge",
        _given_by_the_judge,
        MARK,
        sense="more",
    ),
)
