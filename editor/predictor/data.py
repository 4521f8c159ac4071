"""Instructions with their tasks, from the pairs of runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from editor.data.examples import Reading
from pipeline.errors import UserError
from stages.tasks import Tasks


@dataclass(frozen=True)
class Labelled:
    """Instructions, and for each the place of its task in ``names``."""

    names: Sequence[str]
    texts: Sequence[str]
    labels: Sequence[int]


def read_instructions(paths: Sequence[str], test_share: float, tasks: Tasks) -> tuple[Labelled, Labelled]:
    """``T`` and ``T_inverse`` of all pairs: those to train on, and those of held-out captions.

    Args:
        paths: runs, exports, folders of shards, or shards.
        test_share: share of the captions that are held out, by the same hash as in ``editpairs export``.
        tasks: their indices (TI) name the labels. Only tasks that occur become labels.

    Raises:
        UserError: there are no instructions of two tasks, or a task index has no name.
    """
    known = {task.index: name for name, task in tasks.items()}
    texts: dict[str, list[str]] = {"train": [], "test": []}
    indices: dict[str, list[int]] = {"train": [], "test": []}
    for side, example in Reading(paths, test_share).instructions():
        if example.index not in known:
            raise UserError(f"no task file has the index {example.index}: name the task files with --prompts")
        texts[side].append(example.instruction)
        indices[side].append(example.index)
    used = sorted({*indices["train"]})
    if len(used) < 2:
        raise UserError(f"the pairs have instructions of {len(used)} tasks: a predictor needs two or more")
    names, places = [known[index] for index in used], {index: place for place, index in enumerate(used)}
    train = Labelled(names, texts["train"], [places[index] for index in indices["train"]])
    there = [k for k, index in enumerate(indices["test"]) if index in places]
    held_out = Labelled(names, [texts["test"][k] for k in there], [places[indices["test"][k]] for k in there])
    return train, held_out


@dataclass(frozen=True)
class Confusion:
    """Counts of true and predicted tasks. A predicted task of "" could not be predicted."""

    names: Sequence[str]
    counts: Counter[tuple[str, str]]

    @property
    def right(self) -> float:
        """The share of instructions whose task was predicted, NaN without instructions."""
        total = self.counts.total()
        return sum(self.counts[name, name] for name in self.names) / total if total else float("nan")
