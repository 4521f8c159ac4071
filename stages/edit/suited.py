"""Which settings of the edit stage suit which family of models; without a model library."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stages.candidate import Blocks, Candidate
from stages.edit.config import EditConfig, Kind
from stages.edit.rounds import RoundCandidates
from stages.models.diffusion.families import CROSS, FamilyName, block_count
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
    if family == "unet":
        yield from _unsuited_to_unets(config, candidates)
        return
    model = config.diffusion.model
    if family in CROSS:
        if config.region != "whole":
            yield f"edit.region: {config.region} is not yet for {model}, a transformer: set whole"
        yield from _for_joint_attention(config, candidates, "has cross-attention")
        return
    if config.region == "support" or (config.region == "schedule" and config.hold != "exact"):
        yield (
            f"edit.region: {config.region} does not suit {model}, a transformer: set whole, or schedule with "
            "edit.hold: exact"
        )
    if family == "zimage" and config.control == "p2p":
        yield f"edit.control: p2p is not yet for {model}, whose pictures may have padding: set qk or kv"
    blocks = block_count(family, network)
    if out_of_range(config.blocks, blocks):
        yield f"edit.blocks: {model} has the blocks 0 to {blocks - 1}, not {config.blocks}"
    for task, candidate in candidates.stated_by_task():
        if problem := _unsuited(candidate, config.control or "qk"):
            yield f"task {task}: a candidate has {problem} (docs/prompt-to-prompt.md, section 11)"
        if candidate.blocks is not None and out_of_range(candidate.blocks, blocks):
            yield f"task {task}: a candidate's blocks: {model} has the blocks 0 to {blocks - 1}"
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
    yield from folder_problems(config.editor, config.diffusion.sizes)
    for task, candidate in candidates.stated_by_task():
        for key in sorted(set(candidate.model_dump(exclude_defaults=True)) - {"mask", "guidance_scale"}):
            yield (
                f"task {task}: a candidate has {key}, which is Prompt-to-Prompt's; a candidate of an editor "
                f"has mask and guidance_scale alone: set edit.candidates.{task}"
            )


def _unsuited_to_unets(config: EditConfig, candidates: RoundCandidates) -> Iterator[str]:
    model = config.diffusion.model
    if config.hold != "none":
        yield (
            f"edit.hold: {config.hold} is for transformers; the convolutions of {model}, a U-Net, mix "
            "tokens: set none"
        )
    yield from _for_joint_attention(config, candidates, "is a U-Net")


def _for_joint_attention(config: EditConfig, candidates: RoundCandidates, kind: str) -> Iterator[str]:
    """Settings that only transformers with joint attention have; ``kind``: what the model is instead."""
    model = config.diffusion.model
    if config.control not in (None, "p2p"):
        yield f"edit.control: {config.control} is for transformers; {model} {kind}: leave it out"
    for_transformers = f"chooses blocks of a transformer; {model} {kind}: leave it out"
    if config.blocks != config.implied["blocks"]:
        yield f"edit.blocks {for_transformers}"
    for task, candidate in candidates.stated_by_task():
        if candidate.blocks is not None:
            yield f"task {task}: a candidate's blocks {for_transformers}"


def out_of_range(blocks: Blocks, number: int) -> bool:
    """Whether one of the blocks is none of a network's so many."""
    return isinstance(blocks, tuple) and max(blocks) >= number


def _unsuited(candidate: Candidate, control: Kind) -> str | None:
    """What a candidate asks for that a control of joint attention does not have, and the way out."""
    if control == "p2p":
        if candidate.control == "self":
            return "control: self, which edit.control: qk has: set that, or leave it out"
        if candidate.changed_weight < 0:
            return (
                "a negative changed_weight: maps of text and picture together are normalised: set 0 or more"
            )
        return None
    key = None
    if candidate.control in ("replace", "refine"):
        key = f"control: {candidate.control}"
    elif candidate.changed_until is not None:
        key = "changed_until"
    elif candidate.changed_weight != 1:
        key = "changed_weight"
    return None if key is None else f"{key}, which edit.control: p2p alone has: set that, or leave it out"


def needs_guidance(config: EditConfig, candidates: Iterable[Candidate]) -> bool:
    """Whether any row of a batch is drawn with classifier-free guidance."""
    scales = [config.diffusion.guidance_scale]
    for candidate in candidates:
        scale = candidate.guidance_scale
        if scale is not None:
            scales.append(max(scale) if isinstance(scale, tuple) else scale)
    return max(scales) > 1
