"""Checks of a diffusers folder without loading its models: required files and the most steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.families import family_of, setting_problems
from stages.models.diffusion.families.files import PipelineFiles
from stages.models.diffusion.families.layouts import LAYOUTS
from stages.models.diffusion.memory import most_pixels, size_problems
from stages.models.tokenizer_files import check_tokenizer, words_of_model
from stages.models.weight_files import check_saved_model, problems_of, read_json

_SAVED_AS = dict.fromkeys(("unet", "transformer", "vae"), "diffusion_pytorch_model")
_LCM_STEPS = 50
"""LCMScheduler's default for ``original_inference_steps``."""


def diffusion_problems(config: DiffusionConfig) -> Iterator[str]:
    """Problems in the manifest's section ``diffusion``."""
    found = [*problems_of("diffusion", config, lambda folder: _check_pipeline(folder, config.variant))]
    yield from found
    if config.path is not None and config.path.exists() and not found:
        most, why = _most_steps(config, read_json(config.path / "scheduler" / "scheduler_config.json"))
        if config.steps > most:
            yield f"diffusion.steps: at most {most} ({why} of {config.model}), not {config.steps}"
        files = PipelineFiles(config.path)
        yield from setting_problems(config, files.family, files.network)
        yield from size_problems(config, files.multiple, most_pixels(files.network, files.vae))


def _check_pipeline(folder: Path, variant: str | None) -> None:
    index, named = read_json(folder / "model_index.json"), str(folder / "model_index.json")
    layout = LAYOUTS[family_of(index.get("_class_name"), named)]
    for part in layout.needed:
        if not _is_used(index.get(part)):
            raise ValueError(f"{named} names no {part}: it is not a whole {index['_class_name']}")
    if index[layout.network][1] not in layout.kinds:
        raise ValueError(f"{folder} has a {index[layout.network][1]}, not a {layout.kinds[0]}")
    for part in layout.models:
        if _is_used(index.get(part)):
            config = read_json(folder / part / "config.json")
            if not {"_class_name", "model_type"} & set(config):
                raise ValueError(f"{folder / part / 'config.json'} names no kind of model")
            name = _SAVED_AS.get(part, "model")
            varied = variant is not None and any((folder / part).glob(f"{name}.{variant}*"))
            check_saved_model(folder / part, name, variant if varied else None)
    read_json(folder / "scheduler" / "scheduler_config.json")
    for part, encoder in layout.tokenizers.items():
        if _is_used(index.get(part)) != _is_used(index.get(encoder)):
            raise ValueError(f"{named} names only one of {part} and {encoder}: set both or neither")
        if _is_used(index.get(part)):
            words = words_of_model(read_json(folder / encoder / "config.json"))
            check_tokenizer(folder / part, words)


def left_out(folder: Path | None) -> dict[str, None]:
    """The parts that a folder names as left out, as diffusers wants to be told them. None: no folder."""
    index = None if folder is None else folder / "model_index.json"
    if index is None or not index.is_file():
        return {}
    return {part: None for part, entry in read_json(index).items() if entry == [None, None]}


def _is_used(entry: Any) -> bool:
    """Whether an entry of ``model_index.json`` names a class; an unused part is a pair of nulls."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)


def _most_steps(config: DiffusionConfig, scheduler: dict[str, Any]) -> tuple[int, str]:
    trained = scheduler.get("num_train_timesteps", 1000)
    if config.sampler == "lcm":
        return int(scheduler.get("original_inference_steps", _LCM_STEPS)), "original_inference_steps"
    return int(trained), "num_train_timesteps"
