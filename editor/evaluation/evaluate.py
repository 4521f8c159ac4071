"""Edit every input of a data set and measure the results, by task."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from editor.data.edit_sets import Edit, EditSet
from editor.editing.choice import Choice
from editor.editing.editor import Editor
from editor.evaluation.intervals import Interval, mean_intervals
from editor.evaluation.metrics import Column, Measures
from pipeline.errors import UserError
from stages.seeds import derive_seed

ALL = "all"
"""Name of the line over all tasks."""


@dataclass(frozen=True)
class Measured:
    """One edit with the editor's picture, uint8 [H,W,3], and its figures."""

    edit: Edit
    choice: Choice
    picture: np.ndarray
    values: np.ndarray


@dataclass
class Evaluation:
    """All figures; pictures only of the first edits of each task."""

    columns: Sequence[Column]
    shown_per_task: int
    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    """The task that the data set names, or else the predicted one."""
    chosen: list[str] = field(default_factory=list)
    """The task that the editor was told."""
    values: list[np.ndarray] = field(default_factory=list)
    shown: list[Measured] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, measured: Measured, own: str | None) -> None:
        task = own or measured.choice.task
        if self.tasks.count(task) < self.shown_per_task:
            self.shown.append(measured)
        self.ids.append(measured.edit.id)
        self.groups.append(measured.edit.group)
        self.tasks.append(task)
        self.chosen.append(measured.choice.task)
        self.values.append(measured.values)

    def summary(self) -> dict[str, list[Interval]]:
        """An interval for each column: over all edits, then by task."""
        values, tasks = np.stack(self.values), np.array(self.tasks)
        found = {ALL: mean_intervals(values, self.groups)}
        for task in sorted(set(self.tasks)):
            rows = np.flatnonzero(tasks == task)
            found[task] = mean_intervals(values[rows], [self.groups[row] for row in rows])
        return found


def evaluate(
    editor: Editor,
    edits: EditSet,
    measures: Measures,
    *,
    rows: int | None = None,
    predict: bool = False,
    seed: int = 0,
    batch: int = 8,
    shown_per_task: int = 6,
    told: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Edit and measure.

    Args:
        rows: most edits, the first ones; None for all.
        predict: let the task predictor choose all tasks, also where the data set names one.
        seed: draws the noise of every edit, together with the edit's id.
        batch: edits of one size that are made at once.
        told: called with the number of edits measured so far.

    Raises:
        UserError: no edit can be used, or a file cannot be read.
    """
    found = Evaluation(measures.columns, shown_per_task)
    for part in _batches(_usable(editor, edits, predict, found.skipped), batch, rows):
        pictures = _edited(editor, part, seed)
        values = measures([edit for edit, _, _ in part], pictures)
        for (edit, choice, own), picture, figures in zip(part, pictures, values, strict=True):
            found.add(Measured(edit, choice, picture, figures), own)
        told(len(found.ids))
    found.skipped += edits.skipped
    if not found.ids:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.skipped.items())
        raise UserError(f"{edits.path}: no edit can be used ({reasons or 'the data set has none'})")
    return found


_Chosen = tuple[Edit, Choice, str | None]


def _usable(editor: Editor, edits: EditSet, predict: bool, skipped: Counter[str]) -> Iterator[_Chosen]:
    """Edits that the editor can make, with the chosen task and the one that the data set names."""
    table = editor.chooser.table
    names = dict(zip(table.indices, table.names, strict=True))
    multiple = editor.network.multiple
    for edit in edits:
        height, width = edit.before.shape[:2]
        if height % multiple or width % multiple:
            skipped[f"sides that are no multiples of {multiple} pixels (--side N resizes)"] += 1
            continue
        if not editor.network.prompts.fits(edit.instruction):
            skipped["instruction that is too long"] += 1
            continue
        own = names.get(edit.task) if isinstance(edit.task, int) else edit.task
        try:
            known = own in table.names and not predict
            yield edit, editor.chooser(edit.instruction, own if known else None), own
        except UserError:
            skipped["task that is neither known nor predicted"] += 1


def _batches(edits: Iterator[_Chosen], batch: int, rows: int | None) -> Iterator[list[_Chosen]]:
    """Batches of pictures of one size, in order."""
    part: list[_Chosen] = []
    for number, item in enumerate(edits):
        if number == rows:
            break
        if part and (len(part) == batch or part[0][0].before.shape != item[0].before.shape):
            yield part
            part = []
        part.append(item)
    if part:
        yield part


def _edited(editor: Editor, part: Sequence[_Chosen], seed: int) -> list[np.ndarray]:
    network = editor.network
    latents = network.encode(np.stack([edit.before for edit, _, _ in part]))
    vectors = network.vectors([network.table.row(choice.task) for _, choice, _ in part])
    seeds = [derive_seed(seed, edit.id) for edit, _, _ in part]
    texts = [edit.instruction for edit, _, _ in part]
    return list(network.edit(latents, texts, vectors, editor.guidance, seeds))
