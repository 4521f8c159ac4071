"""Model families: which pipelines of diffusers can be drawn with, and what differs between them.

A family is everything that :class:`stages.models.diffusion.model.Diffusion` asks of a model
(:mod:`stages.models.diffusion.families.base`). A pipeline's class, which its ``model_index.json`` names,
tells the family. This module imports no model library, so that ``editpairs check`` can use it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from stages.models.diffusion import DiffusionConfig

FamilyName = Literal["unet", "flux", "sd3"]

PIPELINES: dict[str, FamilyName] = {
    "StableDiffusionPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "LatentConsistencyModelPipeline": "unet",
    "FluxPipeline": "flux",
    "StableDiffusion3Pipeline": "sd3",
}
SAMPLERS_OF: dict[FamilyName, tuple[str, ...]] = {
    "unet": ("ddim", "euler", "euler_ancestral", "lcm"),
    "flux": ("flow_euler",),
    "sd3": ("flow_euler",),
}


def family_of(pipeline: object, where: str) -> FamilyName:
    """The family of a pipeline class of diffusers.

    Args:
        pipeline: the class's name.
        where: what names it, for the message.

    Raises:
        ValueError: it is none of PIPELINES.
    """
    if not isinstance(pipeline, str) or pipeline not in PIPELINES:
        raise ValueError(f"{where} names the pipeline {pipeline}; supported are {', '.join(PIPELINES)}")
    return PIPELINES[pipeline]


def block_count(family: FamilyName, network: Mapping[str, Any]) -> int:
    """The number of a transformer's blocks, by its configuration."""
    singles = network["num_single_layers"] if family == "flux" else 0
    return int(network["num_layers"]) + int(singles)


def setting_problems(
    config: DiffusionConfig, family: FamilyName, network: Mapping[str, Any]
) -> Iterator[str]:
    """Settings that do not suit a model.

    Args:
        config: the section ``diffusion``.
        family: the model's.
        network: the configuration of its U-Net or transformer.
    """
    fitting = SAMPLERS_OF[family]
    if config.sampler not in fitting:
        yield f"diffusion.sampler: {config.sampler} does not suit {config.model}: set {' or '.join(fitting)}"
    if family == "flux" and config.negative_prompt:
        yield (
            f"diffusion.negative_prompt: {config.model} draws without unconditional rows, which alone would "
            "see it: take it out"
        )
    if family == "flux" and not network["guidance_embeds"] and config.guidance_scale > 1:
        yield f"diffusion.guidance_scale: {config.model} takes no guidance: set 0"
