"""Model families: which pipelines of diffusers can be drawn with, and what differs between them.

A family is everything that :class:`stages.models.diffusion.model.Diffusion` asks of a model
(:mod:`stages.models.diffusion.families.base`). A pipeline's class, which its ``model_index.json`` names, tells
the family. This module imports no model library, so that ``editpairs check`` can use it.
"""

from typing import Literal

FamilyName = Literal["unet", "flux"]

PIPELINES: dict[str, FamilyName] = {
    "StableDiffusionPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "LatentConsistencyModelPipeline": "unet",
    "FluxPipeline": "flux",
}
SAMPLERS_OF: dict[FamilyName, tuple[str, ...]] = {
    "unet": ("ddim", "euler", "euler_ancestral", "lcm"),
    "flux": ("flow_euler",),
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


def sampler_problem(family: FamilyName, sampler: str, model: str) -> str | None:
    """Why a sampler does not suit a model of this family; None if it does."""
    fitting = SAMPLERS_OF[family]
    if sampler in fitting:
        return None
    return f"diffusion.sampler: {sampler} does not suit {model}: set {' or '.join(fitting)}"
