"""Which picture is I and which is Tar, for the score stage, inspect and shards; and the pair backwards."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stages.tasks import Task
from stages.wording import a_picture, definite, phrase_in_a_sentence, shown_in

_SLOT = re.compile(r"{(\w+)}")
_FILL: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "a_picture": ("caption", a_picture),
    "shown": ("caption", shown_in),
    "caption": ("caption", phrase_in_a_sentence),
    "original_object": ("original_object", phrase_in_a_sentence),
    "edited_object": ("edited_object", phrase_in_a_sentence),
    "the_edited_object": ("edited_object", definite),
}
"""For each slot of ``stages.tasks.SLOTS``: the row's column, and its words in a sentence."""

Image = TypeVar("Image")


@dataclass(frozen=True)
class EditPair(Generic[Image]):
    """A published pair: ``input`` is I, ``target`` is Tar, each with its own caption."""

    input: Image
    target: Image
    input_caption: str
    output_caption: str


def anchor_and_edit_prompts(task: Task, row: Mapping[str, Any]) -> tuple[str, str]:
    """The prompts of the anchor and of its edits.

    If the task asks for ``surroundings``, they are the prompt of the picture without the object. The caption
    of the whole picture would draw the remaining objects once more under the mask.
    """
    before, after = row["caption"], row["output_caption"]
    if task.direction == "reverse":
        before, after = after, before
    return before, row["surroundings"] if task.fields.surroundings == "required" else after


def as_pair(
    task: Task, anchor: Image, candidate: Image, caption: str, output_caption: str
) -> EditPair[Image]:
    """Make the pair of an anchor and a candidate.

    The anchor shows the grounded object. A forward task publishes the anchor as I and the candidate as Tar. A
    reverse task (``add`` is ``remove`` backwards) publishes the candidate as I and the anchor as Tar. In both
    cases the plan's caption describes I and the output caption describes Tar.

    Args:
        anchor, candidate: the pictures in any form (bytes, arrays, indices).
    """
    if task.direction == "reverse":
        return EditPair(candidate, anchor, caption, output_caption)
    return EditPair(anchor, candidate, caption, output_caption)


def inverse_instruction(task: Task, row: Mapping[str, Any]) -> str | None:
    """The instruction from Tar back to I, from the task's template; None if it would make no sense.

    Args:
        row: ``caption``, ``original_object`` and ``edited_object``.
    """
    if task.inverse is None:
        return None
    return _worded(task.inverse.instruction, row)


def inverse_captions(task: Task, row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The captions of Tar and of I for the pair backwards; None if the task has no way back.

    They are those of the pair forwards, swapped. A task whose two captions are equal, such as ``sketch``, has
    a template for the caption of Tar.

    Args:
        row: ``caption`` and ``output_caption``.
    """
    if task.inverse is None:
        return None
    before = row["output_caption"]
    if task.inverse.caption is not None:
        before = _worded(task.inverse.caption, row)
    return None if before is None else (before, row["caption"])


def _worded(template: str, row: Mapping[str, Any]) -> str | None:
    """A template with its slots filled; None if a slot has no words."""
    found = set(_SLOT.findall(template))
    slots = {name: fill(row[source] or "") for name, (source, fill) in _FILL.items() if name in found}
    return _SLOT.sub(lambda match: slots[match[1]], template) if all(slots.values()) else None
