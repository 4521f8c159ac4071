"""Make a candidate's edit row from its settings and the captions: token map, gates, LocalBlend."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stages.edit.prompt_to_prompt.alignment import (
    Prompt,
    TokenMap,
    changed_positions,
    refine_map,
    replace_map,
    reweighted,
    token_map,
    word_positions,
)
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.gates import cross_gate, self_gate, shared_gate
from stages.edit.prompt_to_prompt.local_blend import Blend
from stages.edit.prompt_to_prompt.windows import windows
from stages.seeds import derive_seed
from stages.tasks import Candidate, Task


@dataclass(frozen=True)
class Strength:
    """The strengths of a candidate, drawn at random where the task file gives a range.

    ``cross_until`` and ``self_until`` are fractions of the steps.
    """

    cross_until: float
    self_until: float
    guidance_scale: float


def draw_strength(candidate: Candidate, seed: int, index: int, steps: int, guidance_scale: float) -> Strength:
    """Draw the strengths of a row's candidate number ``index`` from the row's seed."""
    rng = random.Random(derive_seed(seed, "strength", index))
    self_until = rng.uniform(*candidate.strength) if candidate.strength else windows(candidate, steps)[1][1]
    guidance = candidate.guidance_scale
    if isinstance(guidance, tuple):
        guidance = rng.uniform(*guidance)
    return Strength(
        windows(candidate, steps)[0][1], self_until, guidance_scale if guidance is None else guidance
    )


def edit_row(
    candidate: Candidate,
    strength: Strength,
    source: Prompt,
    target: Prompt,
    *,
    index: int,
    steps: int,
    length: int,
    mask: torch.Tensor,
    blend: Blend | None,
) -> EditRow:
    """The edit row of a candidate.

    Args:
        candidate: its settings.
        strength: its strengths, from ``draw_strength``.
        source, target: the captions of the source and of the edit.
        index: position of the source row in the batch.
        steps: number of sampling steps.
        length: number of tokens in a padded prompt, T.
        mask: M [H,W] in [0,1].
        blend: LocalBlend, if the candidate uses it.
    """
    if candidate.control == "self":
        tokens, no_gate = _map("refine", source, target, length), torch.zeros(steps, length)
        gate = shared_gate(steps, strength.self_until)
        return EditRow(index, tokens, no_gate, gate, shared=True, mask=mask)
    cross, self_ = windows(candidate, steps)
    tokens = _map(candidate.control, source, target, length)
    if candidate.changed_weight != 1:
        weights = torch.ones(length)
        weights[changed_positions(source, target)] = candidate.changed_weight
        tokens = reweighted(tokens, weights)
    # Words that only the target has can follow the source for a shorter time than the others.
    exceptions = []
    if candidate.changed_until is not None:
        own_window = (candidate.cross_from, candidate.changed_until)
        exceptions.append((changed_positions(source, target), own_window))
    gate_ST = cross_gate(steps, length, cross, exceptions)
    return EditRow(index, tokens, gate_ST, self_gate(steps, self_), mask=mask, blend=blend)


def joint_edit_row(
    candidate: Candidate, strength: Strength, *, index: int, steps: int, mask: torch.Tensor
) -> EditRow:
    """The edit row of a candidate on joint attention, which has no token map and one gate, that of ``self``.

    The gate holds for unconditional rows too (docs/prompt-to-prompt.md, section 11). The arguments are those
    of :func:`edit_row`.
    """
    if candidate.control == "self":
        gate = shared_gate(steps, strength.self_until)
    else:
        gate = self_gate(steps, windows(candidate, steps)[1])
    no_tokens = TokenMap(torch.zeros(0, 0), torch.zeros(0))
    return EditRow(index, no_tokens, torch.zeros(steps, 0), gate, shared=True, mask=mask)


def _map(control: str, source: Prompt, target: Prompt, length: int) -> TokenMap:
    if control == "replace":
        return replace_map(source, target, length)
    if control == "refine":
        return refine_map(source.ids, target.ids, length)
    return token_map(source, target, length)


def local_blend(
    task: Task, candidate: Candidate, row: Mapping[str, Any], source: Prompt, target: Prompt, length: int
) -> Blend | None:
    """LocalBlend on the object's words: the phrase grounded in the anchor, and the edited object's words.

    Raises:
        ValueError: the anchor's caption does not contain the grounded phrase.
    """
    if candidate.blend is None:
        return None
    before, after = row[task.ground], row["edited_object"]
    source_words, target_words = torch.zeros(length), torch.zeros(length)
    source_words[word_positions(source, before)] = 1
    if task.direction == "forward" and task.fields.edited_object == "in_output":
        target_words[word_positions(target, after)] = 1
    return Blend(source_words, target_words, candidate.blend)
