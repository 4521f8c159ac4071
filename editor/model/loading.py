"""Reading and writing an editor: an InstructPix2Pix pipeline of diffusers, and its task table.

model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/    the pipeline
tasks/                                                                  the task table
guidance.json                                                           the guidance to edit with
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from editor.model.network import EditorNetwork, Guidance
from editor.model.task_table import TaskTable
from editor.model.unet import EditorUNet, token_width
from pipeline.errors import UserError
from stages.base import Weights
from stages.models.device import default_device
from stages.models.weights import load_model
from stages.tasks import Task

TASKS_FOLDER, GUIDANCE_FILE = "tasks", "guidance.json"
_EDITORS = (StableDiffusionInstructPix2PixPipeline, StableDiffusionXLInstructPix2PixPipeline)


def load_editor(weights: Weights, key: str = "model", dtype: torch.dtype = torch.float32) -> EditorNetwork:
    """Load a trained editor.

    Args:
        weights: its folder or hub name.
        key: the manifest key or the argument that names it, for errors.

    Raises:
        UserError: it is a text-to-image model, or it has no task table.
        OSError: it cannot be read.
    """
    pipeline = _load_pipeline(weights, key, dtype)
    if not isinstance(pipeline, _EDITORS) or not isinstance(pipeline.unet, EditorUNet):
        raise UserError(
            f"{key}: {weights.model} is a {type(pipeline).__name__} without tasks, not an editor of "
            "editpairs: train an editor from it (editpairs train)"
        )
    path = weights.path
    if path is not None and not (path / TASKS_FOLDER).is_dir():
        raise UserError(
            f"{key}: {weights.model} has no folder {TASKS_FOLDER}, so its task vectors are missing"
        )
    subfolder = {"subfolder": TASKS_FOLDER}
    table = load_model(TaskTable, weights, key, dtype=dtype, low_cpu_mem_usage=False, **subfolder)
    return EditorNetwork(pipeline, table).to(default_device())


def new_editor(
    weights: Weights,
    key: str,
    tasks: Mapping[str, Task],
    zero_terminal_snr: bool = True,
    dtype: torch.dtype = torch.float32,
) -> EditorNetwork:
    """A new editor with the weights of a text-to-image model of the Stable Diffusion or SDXL family.

    Args:
        tasks: the tasks of its table, of which the names and indices (TI) are used.
        zero_terminal_snr: rescale the noise schedule so that its last step is pure noise (Lin et al. 2023).

    Raises:
        UserError: the model is of another family, or it predicts noise, which says nothing at pure noise.
    """
    source = _load_pipeline(weights, key, dtype)
    wide = isinstance(source, StableDiffusionXLPipeline)
    if not wide and not isinstance(source, StableDiffusionPipeline):
        raise UserError(f"{key}: {weights.model} is a {type(source).__name__}, not a text-to-image model")
    try:
        unet = EditorUNet.from_text_to_image(source.unet)
    except ValueError as error:
        raise UserError(f"{key}: {weights.model} cannot become an editor: {error}") from error
    parts = {name: module for name, module in source.components.items() if name not in ("unet", "scheduler")}
    scheduler = _scheduler(source.scheduler.config, zero_terminal_snr, f"{key}: {weights.model}")
    unused = {"image_encoder", "feature_extractor"} if wide else {"image_encoder"}
    parts = {name: module for name, module in parts.items() if name not in unused}
    kind: Any = _EDITORS[wide]
    options = {} if wide else {"requires_safety_checker": False}
    pipeline = kind(**parts, unet=unet, scheduler=scheduler, **options)
    pipeline.set_progress_bar_config(disable=True)
    names = sorted(tasks, key=lambda name: tasks[name].index)
    table = TaskTable(names, [tasks[name].index for name in names], token_width(unet)).to(dtype)
    return EditorNetwork(pipeline, table).to(default_device())


def load_or_begin(
    weights: Weights, key: str, tasks: Mapping[str, Task], zero_terminal_snr: bool = True
) -> EditorNetwork:
    """Load an editor to train it further, or begin one from a text-to-image model."""
    index = None if weights.path is None else weights.path / TASKS_FOLDER
    if index is not None and index.is_dir():
        return load_editor(weights, key)
    return new_editor(weights, key, tasks, zero_terminal_snr)


def save_editor(network: EditorNetwork, folder: Path, guidance: Guidance) -> None:
    """Write an editor in the precision of its weights, as safetensors."""
    network.pipeline.save_pretrained(folder)
    network.table.save_pretrained(folder / TASKS_FOLDER)
    (folder / GUIDANCE_FILE).write_text(json.dumps(asdict(guidance)) + "\n", encoding="utf-8")


def load_guidance(folder: Path) -> Guidance:
    """The guidance that an editor in a local folder was written with; the defaults if it has none."""
    file = folder / GUIDANCE_FILE
    return Guidance(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else Guidance()


def _load_pipeline(weights: Weights, key: str, dtype: torch.dtype) -> Any:
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    pipeline = load_model(
        DiffusionPipeline, weights, key, dtype=dtype, safety_checker=None, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _scheduler(config: Any, zero_terminal_snr: bool, name: str) -> DDIMScheduler:
    options: dict[str, Any] = {"clip_sample": False}
    if zero_terminal_snr:
        if config.get("prediction_type", "epsilon") != "v_prediction":
            raise UserError(
                f"{name} predicts noise, which says nothing about a picture at zero terminal SNR: set "
                "training.zero_terminal_snr to false, or train from a model with v-prediction"
            )
        options |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return DDIMScheduler.from_config(config, **options)
