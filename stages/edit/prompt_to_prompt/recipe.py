"""Make a candidate's edit row from its settings and the captions: token map, gates, LocalBlend."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stages.candidate import Blocks
from stages.edit.config import Kind
from stages.edit.prompt_to_prompt.alignment import TokenMap, reweighted
from stages.edit.prompt_to_prompt.captions import Captions
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
    captions: Captions,
    *,
    index: int,
    steps: int,
    mask: torch.Tensor,
    blend: Blend | None,
    joint: Kind | None = None,
    blocks: torch.Tensor | None = None,
) -> EditRow:
    """The edit row of a candidate.

    Args:
        candidate: its settings.
        strength: its strengths, from ``draw_strength``.
        captions: of the source and of the edit.
        index: position of the source row in the batch.
        steps: number of sampling steps.
        mask: M [H,W] in [0,1].
        blend: LocalBlend, if the candidate uses it.
        joint: what edits take from a joint attention; None for a U-Net. qk and kv have no token map and one
            gate, that of ``self``, which holds for unconditional rows too.
        blocks: the transformer's blocks that are controlled, bool [blocks]; None for a U-Net.
    """
    cross, self_ = windows(candidate, steps)
    alone = candidate.control == "self"
    gate = shared_gate(steps, strength.self_until) if alone else self_gate(steps, self_)
    if joint in ("qk", "kv"):
        no_tokens = TokenMap(torch.zeros(0, 0), torch.zeros(0))
        return EditRow(index, no_tokens, torch.zeros(steps, 0), gate, True, mask, blend, blocks)
    if alone:
        no_gate = torch.zeros(steps, captions.length)
        return EditRow(index, captions.token_map("refine"), no_gate, gate, shared=True, mask=mask)
    tokens = captions.token_map(candidate.control)
    if candidate.changed_weight != 1:
        weights = torch.ones(captions.length)
        weights[captions.changed()] = candidate.changed_weight
        tokens = reweighted(tokens, weights)
    # Words that only the target has can follow the source for a shorter time than the others.
    exceptions = []
    if candidate.changed_until is not None:
        own_window = (candidate.cross_from, candidate.changed_until)
        exceptions.append((captions.changed(), own_window))
    gate_ST = cross_gate(steps, captions.length, cross, exceptions)
    return EditRow(index, tokens, gate_ST, gate, mask=mask, blend=blend, blocks=blocks)


def in_blocks(blocks: Blocks, number: int) -> torch.Tensor:
    """The blocks in which the gates act, bool [number].

    Args:
        blocks: a fraction of the blocks, counted from the first, or their numbers.
        number: of the network's blocks.
    """
    chosen = torch.zeros(number, dtype=torch.bool)
    chosen[list(blocks) if isinstance(blocks, tuple) else slice(max(1, round(blocks * number)))] = True
    return chosen


def local_blend(task: Task, candidate: Candidate, row: Mapping[str, Any], captions: Captions) -> Blend | None:
    """LocalBlend on the object's words: the phrase grounded in the anchor, and the edited object's words.

    Raises:
        ValueError: the anchor's caption does not contain the grounded phrase.
    """
    if candidate.blend is None:
        return None
    target_words = torch.zeros(captions.length)
    if task.direction == "forward" and task.fields.edited_object == "in_output":
        target_words = captions.target_words(row["edited_object"])
    return Blend(captions.source_words(row[task.ground]), target_words, candidate.blend)
