"""Which picture is I and which is Tar, for the score stage, inspect and shards; and the pair backwards."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stages.tasks import SLOTS, Task

_SLOT = re.compile(r"{(\w+)}")
_POSSESSIVES = ("my", "your", "his", "her", "its", "our", "their")

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
    slots = {name: row[name] or "" for name in ("caption", "original_object", "edited_object")}
    slots["the_edited_object"] = definite(slots["edited_object"])
    named = [slots[name] for name in SLOTS if f"{{{name}}}" in task.inverse.instruction]
    if not all(phrase.strip() for phrase in named):
        return None
    return _SLOT.sub(lambda match: slots[match[1]], task.inverse.instruction)


def definite(phrase: str) -> str:
    """``a red car`` becomes ``the red car``; possessives stay (``her hat``)."""
    first, _, rest = phrase.strip().partition(" ")
    if first.casefold() in ("a", "an", "the") and rest:
        return f"the {rest}"
    return phrase.strip() if first.casefold() in _POSSESSIVES or not first else f"the {phrase.strip()}"
