"""Convert published checkpoints into the folders that the loaders read (``editpairs convert``).

Checkpoints are Python pickles. They are read with ``weights_only=True``, so no code in them runs, and written
as safetensors. A tensor that the model needs and the checkpoint lacks is an error. Other tensors (such as
label embeddings from training) are left out and listed.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from pydantic import BaseModel
from safetensors.torch import save_model

from stages.models.grounding.architecture import TEXT_ENCODER, Backbone
from stages.models.grounding.architecture import Architecture as GroundingArchitecture
from stages.models.grounding.architecture import build as build_grounding
from stages.models.segmenter.architecture import Architecture as SegmenterArchitecture
from stages.models.segmenter.architecture import Encoder
from stages.models.segmenter.architecture import build as build_segmenter

GROUNDING: dict[str, GroundingArchitecture] = {
    "groundingdino-swin-t": GroundingArchitecture(),
    "groundingdino-swin-b": GroundingArchitecture(
        backbone=Backbone(
            pretrain_img_size=384,
            embed_dim=128,
            depths=(2, 2, 18, 2),
            num_heads=(4, 8, 16, 32),
            window_size=12,
        )
    ),
}
"""``GroundingDINO_SwinT_OGC`` and ``GroundingDINO_SwinB_cfg``."""

SEGMENTERS: dict[str, SegmenterArchitecture] = {
    "sam-vit-b": SegmenterArchitecture(),
    "sam-vit-l": SegmenterArchitecture(
        encoder=Encoder(embed_dim=1024, depth=24, num_heads=16, global_attn_indexes=(5, 11, 17, 23))
    ),
    "sam-vit-h": SegmenterArchitecture(
        encoder=Encoder(embed_dim=1280, depth=32, num_heads=16, global_attn_indexes=(7, 15, 23, 31))
    ),
}


class CheckpointError(Exception):
    """The checkpoint cannot be read or does not fit the model. The message says why."""


def convert_grounding(
    checkpoint: Path, text_encoder: Path, folder: Path, architecture: GroundingArchitecture
) -> list[str]:
    """Write a GroundingDINO folder.

    Args:
        checkpoint: a published ``.pth`` file.
        text_encoder: a folder with the config and the tokenizer of ``bert-base-uncased``.
        folder: the folder to write.
        architecture: the model's sizes, such as ``GROUNDING["groundingdino-swin-t"]``.

    Returns:
        The names of tensors in the checkpoint that the model does not need.

    Raises:
        CheckpointError: the checkpoint or the text encoder's folder does not fit.
    """
    if not (text_encoder / "config.json").is_file():
        raise CheckpointError(f"{text_encoder} has no config.json: name a folder of bert-base-uncased")
    state = read_checkpoint(checkpoint)
    model = build_grounding(architecture, text_encoder)
    left = _fill(model, state, checkpoint)
    _write(model, architecture, folder)
    target = folder / TEXT_ENCODER
    target.mkdir(exist_ok=True)
    for file in text_encoder.iterdir():
        if file.suffix in (".json", ".txt"):
            shutil.copy(file, target / file.name)
    return left


def convert_segmenter(checkpoint: Path, folder: Path, architecture: SegmenterArchitecture) -> list[str]:
    """Write a SAM folder; see :func:`convert_grounding`."""
    model = build_segmenter(architecture)
    left = _fill(model, read_checkpoint(checkpoint), checkpoint)
    _write(model, architecture, folder)
    return left


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by parameter name, without prefixes added by wrappers.

    Raises:
        CheckpointError: the file contains more than tensors, or is unreadable.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own message recommends to read it unsafely
        raise CheckpointError(
            f"{path} is not a checkpoint that can be read safely: it is no file of torch, or holds more "
            "than tensors"
        ) from error
    except Exception as error:  # a damaged file can make the unpickler raise anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint that can be read safely: {reason}") from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no tensors by name")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _fill(model: torch.nn.Module, state: Mapping[str, torch.Tensor], checkpoint: Path) -> list[str]:
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint} is of another architecture: {error}") from error
    if result.missing_keys:
        names = ", ".join(result.missing_keys[:5])
        raise CheckpointError(f"{checkpoint} lacks {len(result.missing_keys)} tensors, such as {names}")
    return list(result.unexpected_keys)


def _write(model: torch.nn.Module, architecture: BaseModel, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(architecture.model_dump_json(indent=2) + "\n", encoding="utf-8")
    save_model(model, str(folder / "model.safetensors"))
