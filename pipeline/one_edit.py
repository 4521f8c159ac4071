"""``editpairs.draw_edit``: one edit from two captions, drawn by the stages of a run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image

from pipeline.engine.preflight import stage_problems
from pipeline.engine.threads import limit_threads
from pipeline.errors import StageError, UserError, stopping
from pipeline.manifest.manifest import read_manifest
from pipeline.manifest.named import find_manifest
from stages import STAGES
from stages.base import Stage, StageConfig
from stages.pair import as_pair
from stages.pictures.png import decode_grey, decode_rgb
from stages.placed import PlacedStage, first_turn
from stages.tasks import Task, TaskError, Tasks, load_tasks

DRAWING = ("source", "mask", "edit")
"""The stages that an edit goes through, in order."""
_ID = "edit"
_loaded: dict[str, Stage[Any]] = {}
"""The stages of the last call. The next call with the same settings does not load the models again."""


@dataclass(frozen=True)
class DrawnEdit:
    """One edit. All pictures have the same size."""

    input: Image.Image
    """RGB picture of the input caption."""
    target: Image.Image
    """RGB picture of the output caption: the first of ``targets``."""
    mask: Image.Image
    """The soft mask, 8-bit grey: how freely each pixel could change. White if nothing is grounded."""
    targets: tuple[Image.Image, ...]
    """One picture per candidate of the task. A run would keep the one with the best scores."""


def draw_edit(
    input_caption: str,
    output_caption: str,
    *,
    task: str,
    original_object: str = "",
    edited_object: str = "",
    instruction: str = "",
    surroundings: str = "",
    seed: int = 0,
    manifest: str | os.PathLike[str] = "toybox",
    settings: Sequence[str] = (),
) -> DrawnEdit:
    """Draw one edit: the picture of a caption, the mask of the edit, and the picture after it.

    The manifest's stages source, mask and edit draw it as one row; no run is made. The models stay loaded for
    the next call with the same manifest and task.

    Args:
        input_caption: describes the picture before the edit.
        output_caption: describes the picture after the edit.
        task: name of a task file, such as ``local`` (another object), ``color`` or ``background``.
        original_object: words of the caption for the changed or removed object.
        edited_object: words for the new object.
        instruction: the instruction; required by tasks that draw from it (adjust).
        surroundings: description of the place without the object; required by remove and add.
        seed: seed of the noise; another seed draws another picture.
        manifest: names the models: a path, or the name of a shipped manifest.
        settings: changes of the manifest, such as ``"diffusion.steps=10"``.

    Raises:
        UserError: the task is unknown or needs more words, the manifest is wrong, its models are missing, or
            a stage rejected the edit, for example because the object was not found in the picture.
        StageError: a stage could not start, or its model's output was not finite.
    """
    content = read_manifest(find_manifest(manifest), settings, STAGES)
    try:
        tasks = load_tasks(content.tasks.prompts, names=[task])
    except TaskError as error:
        raise UserError(str(error).replace("in the manifest key tasks.mixture", "")) from error
    words = {
        "caption": input_caption,
        "output_caption": output_caption,
        "original_object": original_object,
        "edited_object": edited_object,
        "instruction": instruction,
        "surroundings": surroundings,
    }
    _check_words(tasks[task], words)
    row: dict[str, Any] = {"task": task, "seed": seed, **words}
    stages = first_turn({name: STAGES[name] for name in DRAWING})
    configs = {name: content.section(name, StageConfig).model_copy(update={"batch": 1}) for name in stages}
    found = [line for name in stages for line in stage_problems(stages[name], configs[name], tasks)]
    if found:
        raise UserError("\n".join(dict.fromkeys(found)))
    for name, placed in stages.items():
        row |= _run(placed, configs[name], tasks, row)
    pairs = [
        as_pair(tasks[task], row["anchor"], candidate["image"], input_caption, output_caption)
        for candidate in row["candidates"]
    ]
    targets = tuple(Image.fromarray(decode_rgb(pair.target)) for pair in pairs)
    return DrawnEdit(
        input=Image.fromarray(decode_rgb(pairs[0].input)),
        target=targets[0],
        mask=Image.fromarray(decode_grey(row["soft_mask"])),
        targets=targets,
    )


def _check_words(task: Task, words: Mapping[str, str]) -> None:
    """Raise a UserError if an argument that the task needs is empty."""
    needed = ["caption", "output_caption"]
    needed += [task.ground] if task.ground != "none" else []
    needed += ["surroundings"] if task.fields.surroundings == "required" else []
    for name in needed:
        if not words[name].strip():
            argument = "input_caption" if name == "caption" else name
            raise UserError(f"the task {task.name} needs {argument}, which is empty")


def _run(placed: PlacedStage, config: StageConfig, tasks: Tasks, row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a stage adds to the row.

    Raises:
        UserError: the stage rejected the row.
        StageError: the stage could not start, or failed.
    """
    name = placed.name
    limit_threads(config.resources.threads)  # as in a run: the number of threads can change the last bit
    stage = _loaded.get(name)
    if stage is None or stage.config != config or dict(stage.tasks) != dict(tasks):
        _loaded.pop(name, None)  # free the old models before loading new ones
        with stopping(name, "start"):
            stage = _loaded[name] = placed.load(config, tasks)
    columns = [column for read in placed.reads.values() for column in read]
    given = pa.table({"id": [_ID], **{column: [row[column]] for column in dict.fromkeys(columns)}})
    (record,) = stage(given).to_pylist()
    if record["status"] == "rejected":
        raise UserError(f"{name} gave the edit up: {record['reason']}{_hint(record)}")
    if record["status"] == "failed":
        raise StageError(f"{name} failed: {record['reason']}")
    return record


def _hint(record: Mapping[str, Any]) -> str:
    """Advice about a rejection."""
    if record["reason"] == "unknown_word":
        return f" in {record['phrase']!r}: the detector of this manifest was not trained on it"
    if record["reason"] in ("not_grounded", "mask_area", "too_many_boxes"):
        return f" ({record['phrase']!r} in the picture of this seed): try another seed or other words"
    return ""
