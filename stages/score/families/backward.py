"""Metrics of the pair backwards: is it good for ``T_inverse``, from Tar to I?

Where the captions of the pair backwards are those of the pair forwards, swapped, ``inverse_direction`` equals
``clip_direction``: both changes have the other sign. It differs for tasks such as ``sketch``, in which only
the pair backwards has two captions.
"""

from stages.pair import inverse_captions
from stages.score.evidence import Evidence, Look
from stages.score.metric import COSINE, Metric
from stages.tasks import Task


def _needs_a_way_back(task: Task) -> str:
    return "" if task.inverse is not None else "needs 'inverse', a way back"


def _needs_two_captions(task: Task) -> str:
    has_two = task.fields.caption == "changed" or (task.inverse is not None and task.inverse.caption)
    return _needs_a_way_back(task) or ("" if has_two else "needs 'inverse.caption', a caption of Tar")


def _needs_brought_back(task: Task) -> str:
    named = task.fields.original_object == "in_input"
    return _needs_a_way_back(task) or ("" if named else "needs fields.original_object: in_input")


def _needs_taken_away(task: Task) -> str:
    named = task.fields.edited_object == "in_output"
    return _needs_a_way_back(task) or ("" if named else "needs fields.edited_object: in_output")


def _brought_back(task: Task) -> Look | None:
    return Look("original_object", "input")


def _taken_away(task: Task) -> Look | None:
    return Look("edited_object", "input")


def _inverse_direction(evidence: Evidence) -> float | None:
    captions = inverse_captions(evidence.task, evidence.row.record)
    if captions is None:
        return None
    from stages.models.clip import direction

    pair, images, texts = evidence.pair, evidence.seen.clip, evidence.seen.texts
    before, after = map(texts.get, captions)
    if before is None or after is None or captions[0] == captions[1]:
        return None
    return direction(images[pair.target], images[pair.input], before, after)


def _inverse_present(evidence: Evidence) -> float | None:
    found = evidence.detected(_brought_back(evidence.task))
    return found.best_score if found else None


def _inverse_absent(evidence: Evidence) -> float | None:
    found = evidence.detected(_taken_away(evidence.task))
    return found.best_score if found else None


METRICS = (
    Metric(
        "inverse_direction",
        "backwards: CLIP similarity of the change from Tar to I and the change of the captions",
        "clip",
        _inverse_direction,
        COSINE,
        sense="more",
        backward=True,
        unsuited=_needs_two_captions,
    ),
    Metric(
        "inverse_present",
        "backwards: the detector's best score in I for what T_inverse brings back",
        "detector",
        _inverse_present,
        sense="more",
        backward=True,
        look=_brought_back,
        unsuited=_needs_brought_back,
    ),
    Metric(
        "inverse_absent",
        "backwards: the detector's best score in I for what T_inverse takes away (an upper bound)",
        "detector",
        _inverse_absent,
        sense="less",
        backward=True,
        look=_taken_away,
        unsuited=_needs_taken_away,
    ),
)
