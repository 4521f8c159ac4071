"""Which settings of the edit stage suit which family of models; without a model library."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stages.candidate import Candidate
from stages.edit.config import EditConfig
from stages.edit.rounds import RoundCandidates
from stages.models.diffusion.families import FamilyName
from stages.models.editors.folder import folder_problems


def control_problems(
    config: EditConfig, candidates: RoundCandidates, family: FamilyName, network: Mapping[str, Any]
) -> Iterator[str]:
    """Settings that do not suit a model.

    Args:
        config: the section ``edit``.
        candidates: of the run's tasks.
        family: the model's.
        network: the configuration of its U-Net or transformer.
    """
    model = config.diffusion.model
    if family == "unet":
        if config.hold != "none":
            yield (
                f"edit.hold: {config.hold} is for transformers; the convolutions of {model}, a U-Net, mix "
                "tokens: set none"
            )
        return
    if family == "sd3" and config.region != "whole":
        yield f"edit.region: {config.region} is not yet for {model}, a transformer: set whole"
    elif config.region == "support" or (config.region == "schedule" and config.hold != "exact"):
        yield (
            f"edit.region: {config.region} does not suit {model}, a transformer: set whole, or schedule with "
            "edit.hold: exact"
        )
    for task, candidate in candidates.stated_by_task():
        if key := _unsuited(candidate):
            yield (
                f"task {task}: a candidate has {key}, which needs an attention over the text alone; {model} "
                "has one over text and picture: leave it out (docs/prompt-to-prompt.md, section 11)"
            )
        if candidate.guidance_scale and family == "flux" and not network["guidance_embeds"]:
            yield f"task {task}: a candidate has guidance_scale, but {model} takes no guidance: leave it out"


def editor_problems(config: EditConfig, candidates: RoundCandidates) -> Iterator[str]:
    """Problems of the tasks of method ``editor``.

    Args:
        config: the section ``edit``.
        candidates: of these tasks.
    """
    if config.editor is None:
        for name in candidates.first:
            yield (
                f"the task {name} needs an editor: set edit.editor.model, or take the task out of "
                "tasks.mixture"
            )
        return
    yield from folder_problems(config.editor)
    for task, candidate in candidates.stated_by_task():
        for key in sorted(set(candidate.model_dump(exclude_defaults=True)) - {"mask", "guidance_scale"}):
            yield (
                f"task {task}: a candidate has {key}, which is Prompt-to-Prompt's; a candidate of an editor "
                f"has mask and guidance_scale alone: set edit.candidates.{task}"
            )


def _unsuited(candidate: Candidate) -> str | None:
    """What a candidate asks for that joint attention does not have."""
    if candidate.control in ("replace", "refine"):
        return f"control: {candidate.control}"
    if candidate.blend is not None:
        return "blend"
    if candidate.changed_until is not None:
        return "changed_until"
    return "changed_weight" if candidate.changed_weight != 1 else None


def needs_guidance(config: EditConfig, candidates: Iterable[Candidate]) -> bool:
    """Whether any row of a batch is drawn with classifier-free guidance."""
    scales = [config.diffusion.guidance_scale]
    for candidate in candidates:
        scale = candidate.guidance_scale
        if scale is not None:
            scales.append(max(scale) if isinstance(scale, tuple) else scale)
    return max(scales) > 1
