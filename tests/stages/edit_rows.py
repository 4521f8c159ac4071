"""Rows for the edit stage, with sources that a small random model draws; and checks that every family has."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.manifest.manifest import read_manifest, tasks_of
from stages import STAGES
from stages.edit.config import EditConfig
from stages.edit.stage import Edit
from stages.pictures.png import encode_png
from stages.source.stage import Source, SourceConfig
from stages.tasks import Tasks
from tests.stages.test_finite import plan
from tests.stages.tiny_tasks import tiny_task

SOURCE_COLUMNS = ("id", "caption", "task", "seed", "output_caption", "surroundings")


def tasks(*candidates: dict) -> Tasks:
    """One task that edits a region, by default with one candidate."""
    both = candidates or ({"mask": "soft", "cross_until": 0.5, "self_until": 0.5},)
    return Tasks({"local": tiny_task(metrics=[], composite=True, candidates=list(both))})


def drawn_rows(
    diffusion: dict[str, Any], seeds: tuple[int, ...], size: tuple[int, int], side: int, longer: str = ""
) -> pa.Table:
    """Rows of sources drawn by a model, with a square region of ``side`` pixels near the corner.

    ``longer``: what is added to the edits' captions.
    """
    given = plan(*seeds)
    given["output_caption"] = [caption + longer for caption in given["output_caption"]]
    only = pa.table({name: column for name, column in given.items() if name in SOURCE_COLUMNS})
    source = Source(Source.Config.model_validate({"diffusion": diffusion, "batch": 3}), tasks())
    mask = np.zeros(size, np.uint8)
    mask[4 : 4 + side, 4 : 4 + side] = 255
    columns = dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), [encode_png(mask)] * len(seeds))
    columns["source_image"] = source(only)["source_image"]
    return pa.table({**given, **columns, "boxes": [[[4.0, 4, 4 + side, 4 + side]]] * len(seeds)})


def latents_of(editor: Edit, table: pa.Table, monkeypatch) -> torch.Tensor:
    """The latents [rows, 1 + candidates, c,h,w] that a stage draws."""
    drawn, model = [], editor.drawing.model
    kept = model.sample
    with monkeypatch.context() as patched:
        patched.setattr(
            model, "sample", lambda *given, **named: drawn.append(kept(*given, **named)) or drawn[-1]
        )
        editor(table)
    (latents,) = drawn
    return torch.stack([latents[:3], latents[3:]], 1)


def assert_refused(config: EditConfig, own: Tasks, message: str) -> None:
    """The check names the one problem, and loading raises it."""
    [problem] = Edit.problems(config, own)
    assert re.search(message, problem)
    with pytest.raises(ValueError, match=message):
        Edit(config, own)


def assert_manifest_suits(path: Path, folder: Path) -> Edit:
    """A shipped manifest passes the checks on a small folder, and another family's sampler does not.

    Returns the edit stage that it loads.
    """
    overrides = (f"diffusion.model={folder}", "diffusion.height=32", "diffusion.width=32")
    manifest = read_manifest(path, overrides, STAGES)
    config, own = manifest.section("edit", EditConfig), tasks_of(manifest)
    assert list(Edit.problems(config, own)) == []
    assert list(Source.problems(manifest.section("source", SourceConfig), own)) == []
    other = read_manifest(path, (*overrides, "diffusion.sampler=lcm"), STAGES)
    assert "does not suit" in "".join(Edit.problems(other.section("edit", EditConfig), own))
    return Edit(config, own)
