"""Which picture is I and which is Tar: one answer for score, inspect and shards alike."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from stages.tasks import Task

Image = TypeVar("Image")


@dataclass(frozen=True)
class EditPair(Generic[Image]):
    """A pair as it is published: ``input`` is I, ``target`` is Tar, each with its own caption."""

    input: Image
    target: Image
    input_caption: str
    output_caption: str


def anchor_and_edit_captions(task: Task, caption: str, output_caption: str) -> tuple[str, str]:
    """The caption that the anchor is drawn from, and the one that its edits are."""
    if task.direction == "reverse":
        return output_caption, caption
    return caption, output_caption


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
