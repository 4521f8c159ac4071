"""Which picture is I and which is Tar, for score, inspect and shards alike; and the pair backwards."""

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
    """A pair as it is published: ``input`` is I, ``target`` is Tar, each with its own caption."""

    input: Image
    target: Image
    input_caption: str
    output_caption: str


def anchor_and_edit_prompts(task: Task, row: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt that the anchor is drawn from, and the one that its edits are.

    The picture without the object is drawn from the row's ``surroundings`` where the task asks for
    them: under the mask the caption of the whole picture would draw the objects that stay once more.
    """
    before, after = row["caption"], row["output_caption"]
    if task.direction == "reverse":
        before, after = after, before
    return before, row["surroundings"] if task.fields.surroundings == "required" else after


def as_pair(
    task: Task, anchor: Image, candidate: Image, caption: str, output_caption: str
) -> EditPair[Image]:
    """The pair that an anchor and a candidate make.

    The anchor shows the grounded object. A forward task publishes it as I and the candidate as Tar;
    a reverse task (``add`` is ``remove`` backwards) publishes the candidate as I and the anchor as
    Tar. Either way the plan's caption describes I and the output caption describes Tar.

    Args:
        anchor, candidate: the pictures, or whatever stands for them (bytes, arrays, indices).
    """
    if task.direction == "reverse":
        return EditPair(candidate, anchor, caption, output_caption)
    return EditPair(anchor, candidate, caption, output_caption)


def inverse_instruction(task: Task, row: Mapping[str, Any]) -> str | None:
    """What leads from Tar back to I, by the task's template; None where it makes no sense.

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
    """``a red car`` as ``the red car``; possessives stay (``her hat``)."""
    first, _, rest = phrase.strip().partition(" ")
    if first.casefold() in ("a", "an", "the") and rest:
        return f"the {rest}"
    return phrase.strip() if first.casefold() in _POSSESSIVES or not first else f"the {phrase.strip()}"
