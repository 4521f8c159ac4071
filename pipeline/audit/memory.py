"""The memory that each stage's worker needs, counted from weights and configurations; no model is loaded."""

from collections.abc import Mapping

from pipeline.audit.licences import weights_in
from pipeline.engine.sizing import sized
from pipeline.shown import DataTable, plain_table, size_shown
from stages.base import StageConfig, Weights
from stages.models.weight_files import folder_of, parameters_in
from stages.placed import Chain
from stages.tasks import Tasks

_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}
"""Bytes of a parameter by its type in a safetensors file; all others have one."""


def memory_table(stages: Chain, configs: Mapping[str, StageConfig], tasks: Tasks) -> DataTable:
    """A table of the first turn's stages with models: weights, activations of one call, GPUs of a worker."""
    table = plain_table("stage", "batch", "weights", "activations", "GPU a worker")
    for step, placed in stages.items():
        config = sized(configs[step], None)
        loaded = [model for model in weights_in(config) if getattr(model, "endpoint", None) is None]
        if placed.turn > 1 or placed.round > 1 or not loaded:
            continue
        counted = [_bytes(section) for section in loaded]
        missing = sum(size is None for size in counted)
        weights = sum(size or 0 for size in counted)
        absent = f"{missing} not counted" if missing else ""
        told = " + ".join(filter(None, [size_shown(weights) if weights else "", absent]))
        activations = placed.stage.activations(config, tasks)
        table.add_row(
            step,
            "auto" if configs[step].batch != config.batch else str(config.batch),
            told,
            "not known" if activations is None else size_shown(activations),
            f"{config.resources.gpus:g}",
        )
    return table


def _bytes(section: Weights) -> int | None:
    """Bytes of a model's weights in memory; None if its files are not on this machine, or unreadable."""
    from safetensors import SafetensorError

    folder = folder_of(section)
    try:
        counts = {} if folder is None else parameters_in(folder, getattr(section, "variant", None))
    except (SafetensorError, OSError):
        return None
    if not counts:
        return None
    halved = getattr(section, "halved", False)
    return sum(number * (2 if halved else _BYTES.get(kind, 1)) for kind, number in counts.items())
