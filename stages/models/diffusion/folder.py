"""Checks of a diffusers folder without loading its models: required files and the most steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.memory import latent_multiple, pixels_per_latent, size_problems
from stages.models.tokenizer_files import check_tokenizer
from stages.models.weight_files import check_saved_model, problems_of, read_json

_SAVED_AS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")
_TOKENIZERS = {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"}
_NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
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
        vae, unet = (read_json(config.path / part / "config.json") for part in ("vae", "unet"))
        yield from size_problems(config, latent_multiple(unet) * pixels_per_latent(vae))


def _check_pipeline(folder: Path, variant: str | None) -> None:
    index = read_json(folder / "model_index.json")
    for part in _NEEDED:
        if not _is_used(index.get(part)):
            raise ValueError(
                f"{folder / 'model_index.json'} names no {part}: it is not a Stable Diffusion or SDXL "
                "pipeline"
            )
    if index["unet"][1] != "UNet2DConditionModel":
        raise ValueError(f"{folder} has a {index['unet'][1]}, not a UNet2DConditionModel")
    for part in _MODELS:
        if _is_used(index.get(part)):
            config = read_json(folder / part / "config.json")
            if not {"_class_name", "model_type"} & set(config):
                raise ValueError(f"{folder / part / 'config.json'} names no kind of model")
            name = _SAVED_AS.get(part, "model")
            varied = variant is not None and any((folder / part).glob(f"{name}.{variant}*"))
            check_saved_model(folder / part, name, variant if varied else None)
    read_json(folder / "scheduler" / "scheduler_config.json")
    for part, encoder in _TOKENIZERS.items():
        if _is_used(index.get(part)):
            words = read_json(folder / encoder / "config.json").get("vocab_size")
            check_tokenizer(folder / part, words)


def _is_used(entry: Any) -> bool:
    """Whether an entry of ``model_index.json`` names a class; an unused part is a pair of nulls."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)


def _most_steps(config: DiffusionConfig, scheduler: dict[str, Any]) -> tuple[int, str]:
    trained = scheduler.get("num_train_timesteps", 1000)
    if config.sampler == "lcm":
        return int(scheduler.get("original_inference_steps", _LCM_STEPS)), "original_inference_steps"
    return int(trained), "num_train_timesteps"
