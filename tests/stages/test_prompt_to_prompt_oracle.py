"""Every controller, mask mode and sampler agrees with an oracle that stores its maps.

On a tiny random U-Net whose attention is made peaky, so that control matters: to 1e-11 in float64
and 1e-4 in float32. Negative controls are a step, a word or a map off, and must be noticed.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from stages.edit.prompt_to_prompt.alignment import (
    Prompt,
    TokenMap,
    published_replace_map,
    refine_map,
    replace_map,
    reweighted,
)
from stages.edit.prompt_to_prompt.attention import begin, install
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.gates import cross_gate, self_gate, shared_gate
from stages.edit.prompt_to_prompt.local_blend import Blend
from stages.models.diffusion.sampler import SCHEDULERS, sample
from tests.stages import oracle as maps
from tests.stages.oracle import Oracle, OracleEdit

LENGTH, STEPS, SELF_MAX, BLEND = 10, 5, 16, 16
EXACT, CLOSE, NOTICED = 1e-11, 1e-4, 1e-3

STABLE_DIFFUSION = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
}


def prompt(words: str) -> Prompt:
    """Letters are tokens: ``"a bc"`` has a word of one token and one of two."""
    ids, spans = [100], []
    for word in words.split():
        spans.append(list(range(len(ids), len(ids) + len(word))))
        ids += [ord(letter) for letter in word]
    return Prompt(words, [*ids, 101], spans)


SOURCE = prompt("a b c d")
REPLACE = replace_map(SOURCE, prompt("a x c d"), LENGTH)
LONGER = replace_map(SOURCE, prompt("a xy c d"), LENGTH)
PUBLISHED = published_replace_map(SOURCE, prompt("a xy c d"), LENGTH)
REFINE = refine_map(SOURCE.ids, prompt("a x b c d y").ids, LENGTH)


def soft_mask() -> torch.Tensor:
    mask = torch.zeros(32, 32)
    mask[8:24, 10:22] = torch.linspace(0.1, 1, 12)
    return mask


@dataclass
class Case:
    """Edits as the oracle takes them, and the options of both sides."""

    edits: list[OracleEdit]
    sources: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    sampler: str = "ddim"
    captions: list[int] | None = None
    """Rows of one number have one caption; None: each its own."""


def edit(tokens=REPLACE, **options) -> OracleEdit:
    options = {"cross": (0, 0.8), "self_": (0, 0.4), **options}
    return OracleEdit(tokens.matrix, tokens.own, **options)


BLENDED = {"source_words": [2], "target_words": [2], "threshold": 0.93}
CASES = {
    "no control": Case([edit(cross=(0, 0), self_=(0, 0))]),
    "replace": Case([edit()]),
    "replace by more tokens": Case([edit(LONGER)]),
    "replace as published": Case([edit(PUBLISHED)]),
    "refine": Case([edit(REFINE)]),
    "windows": Case([edit(cross=(0.2, 0.6), self_=(0.2, 0.8))]),
    "a word's own window": Case([edit(exceptions={2: (0, 0.2), 4: (0.5, 1)})]),
    "reweight": Case([edit(weights={2: 4.0})]),
    "reweight around refine": Case([edit(REFINE, weights={2: -2.0, 3: 0.5})]),
    "local blend": Case([edit(REFINE, **BLENDED)]),
    "local blend of a reweighted word": Case([edit(weights={2: 3.0}, **BLENDED)]),
    "self-attention shared": Case([edit(instruct_strength=0.6)]),
    "self-attention shared with one of two": Case([edit(instruct_strength=0.9), edit(REFINE)]),
    "soft mask": Case([edit(mask=soft_mask())]),
    "soft mask on latents alone": Case([edit(mask=soft_mask())], options={"mask_attention": False}),
    "soft mask on attention alone": Case([edit(mask=soft_mask())], options={"fusion": "none"}),
    "soft mask by power": Case([edit(mask=soft_mask())], options={"fusion": "power"}),
    "soft mask by lerp": Case([edit(mask=soft_mask())], options={"fusion": "lerp"}),
    "soft mask and local blend": Case([edit(mask=soft_mask(), **BLENDED)]),
    "three edits of one source": Case([edit(), edit(REFINE, mask=soft_mask()), edit(weights={2: 2.0})]),
    "two sources": Case([edit(source=1), edit(REFINE), edit(source=1, self_=(0, 1))], sources=2),
    "a second turn": Case([edit(), edit(REFINE, source=1)]),
    "a second turn of two edits": Case(
        [edit(REFINE), edit(mask=soft_mask()), edit(source=1), edit(REFINE, source=2, mask=soft_mask().T)]
    ),
    "a second turn, by rows of two sources": Case(
        [edit(source=1), edit(REFINE), edit(LONGER, source=3), edit(source=2, self_=(0, 1))], sources=2
    ),
    "a third turn with local blend": Case(
        [
            edit(REFINE, **BLENDED),
            edit(source=1, weights={2: 2.0}),
            edit(source=2, mask=soft_mask(), **BLENDED),
        ]
    ),
    "a second turn with self-attention shared": Case([edit(), edit(source=1, instruct_strength=0.6)]),
    "a second turn after self-attention shared": Case([edit(instruct_strength=0.6), edit(source=1)]),
    "without guidance": Case([edit(mask=soft_mask(), **BLENDED)], options={"guided": False}),
    "euler": Case([edit(mask=soft_mask())], sampler="euler"),
}


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "to_q.weight" in name or "to_k.weight" in name:
                parameter *= 2.5
            elif "to_out.0.weight" in name:
                parameter *= 2
    return model.eval()


def run(unet, case: Case, control, dtype: torch.dtype) -> torch.Tensor:
    """Latents [rows,4,8,8] at the end, from noise that rows of one source share."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(case.sources, 4, 8, 8, generator=generator).to(dtype)
    cond = torch.randn(case.sources + len(case.edits), LENGTH, 16, generator=generator).to(dtype)
    if case.captions:
        cond = cond[case.captions]
    uncond = torch.randn(LENGTH, 16, generator=generator).to(dtype)
    roots = list(range(case.sources))
    for e in case.edits:
        roots.append(roots[e.source])
    guided = case.options.get("guided", True)
    return sample(
        unet,
        SCHEDULERS[case.sampler].from_config(STABLE_DIFFUSION),
        noise[roots],
        cond,
        uncond if guided else None,
        torch.full((len(cond),), 3.0),
        STEPS,
        control,
        noise_seeds=roots,
    )


def by_oracle(unet, case: Case, dtype=torch.float64, **options) -> torch.Tensor:
    def typed(e: OracleEdit) -> OracleEdit:
        mask = None if e.mask is None else e.mask.to(dtype)
        return replace(e, matrix=e.matrix.to(dtype), own=e.own.to(dtype), mask=mask)

    edits = [typed(e) for e in case.edits]
    options = {"blend_tokens": BLEND, **case.options, **options}
    control = Oracle(edits, case.sources, STEPS, SELF_MAX, **options)
    maps.install(unet.to(dtype), control)
    return run(unet, case, control, dtype)


def row_of(e: OracleEdit) -> EditRow:
    """An edit as ours takes it."""
    exceptions = [([token], window) for token, window in e.exceptions.items()]
    weights, blend = torch.ones(LENGTH), None
    for token, weight in e.weights.items():
        weights[token] = weight
    if e.threshold is not None:
        words = torch.zeros(2, LENGTH)
        words[0, e.source_words] = words[1, e.target_words] = 1
        blend = Blend(words[0], words[1], e.threshold)
    tokens = reweighted(TokenMap(e.matrix, e.own), weights)
    if e.instruct_strength is not None:
        gate = shared_gate(STEPS, e.instruct_strength)
        cross = cross_gate(STEPS, LENGTH, e.cross, exceptions)
        return EditRow(e.source, tokens, cross, gate, shared=True, mask=e.mask, blend=blend)
    cross, self_ = cross_gate(STEPS, LENGTH, e.cross, exceptions), self_gate(STEPS, e.self_)
    return EditRow(e.source, tokens, cross, self_, mask=e.mask, blend=blend)


def ours(unet, case: Case, dtype=torch.float64) -> torch.Tensor:
    layers = install(unet.to(dtype))
    rows = [row_of(e) for e in case.edits]
    options = {"blend_tokens": BLEND, **case.options}
    control = PromptToPrompt(rows, case.sources, STEPS, SELF_MAX, torch.device("cpu"), dtype, **options)
    begin(layers, control)
    return run(unet, case, control, dtype)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_stored_maps(unet, name):
    case = CASES[name]
    expected = by_oracle(unet, case)
    assert (ours(unet, case) - expected).abs().max() < EXACT
    assert (ours(unet, case, torch.float32) - expected).abs().max() < CLOSE
    if name != "no control":
        free = by_oracle(
            unet, replace(case, edits=[edit(cross=(0, 0), self_=(0, 0), source=e.source) for e in case.edits])
        )
        assert (free - expected).abs().max() > 100 * CLOSE, "the control matters"


def test_a_turn_that_changes_nothing_draws_the_picture_of_the_turn_before(unet):
    """Its caption is the same and its gates are open: it attends as the turn before does."""
    same = TokenMap(torch.eye(LENGTH), torch.zeros(LENGTH))
    turns = [edit(LONGER), edit(same, cross=(0, 1), self_=(0, 1), source=1)]
    source, first, second = ours(unet, Case(turns, captions=[0, 1, 1]))
    assert (first - second).abs().max() < EXACT
    assert (first - source).abs().max() > NOTICED


@pytest.mark.parametrize(
    ("sources", "error"), [([0, 2], "before it"), ([0, -1], "before it"), ([0, 1, 0], "in order")]
)
def test_turns_come_in_order(sources, error):
    rows = [row_of(edit(source=source)) for source in sources]
    with pytest.raises(ValueError, match=error):
        PromptToPrompt(rows, 1, STEPS, SELF_MAX, torch.device("cpu"))


@pytest.mark.parametrize("sampler", ["euler_ancestral", "lcm"])
def test_samplers_that_add_noise_give_a_source_and_its_edits_the_same(unet, sampler):
    case = Case([edit(mask=soft_mask() * 0), edit()], sampler=sampler)
    latents = ours(unet, case)
    assert torch.equal(latents[0], latents[1]), "nothing may change under an empty mask"
    assert (latents[0] - latents[2]).abs().max() > NOTICED
    # Their schedulers compute in float32 inside.
    assert (latents - by_oracle(unet, case)).abs().max() < CLOSE


WRONG = {
    "a cross gate one step short": ("replace", {"cross": (0, 0.6)}),
    "a self gate one step short": ("replace", {"self_": (0, 0.2)}),
    "a window that begins a step late": ("windows", {"cross": (0.4, 0.6)}),
    "the wrong word's window": ("a word's own window", {"exceptions": {3: (0, 0.2), 4: (0.5, 1)}}),
    "another weight": ("reweight", {"weights": {2: 3.5}}),
    "another threshold": ("local blend", {"threshold": 0.5}),
    "another strength": ("self-attention shared", {"instruct_strength": 0.4}),
    "the published mapper's tail": ("replace by more tokens", {"matrix": PUBLISHED.matrix}),
    "a mask one pixel off": ("soft mask", {"mask": soft_mask().roll(4, 1)}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_a_little_off_is_noticed(unet, name):
    right, wrong = WRONG[name]
    case = CASES[right]
    other = replace(case, edits=[replace(case.edits[0], **wrong)])
    assert (ours(unet, other) - by_oracle(unet, case)).abs().max() > NOTICED


def test_local_blend_follows_the_controlled_maps(unet):
    case = CASES["local blend of a reweighted word"]
    other = by_oracle(unet, case, blend_before_control=True)
    assert (ours(unet, case) - other).abs().max() > NOTICED


@pytest.mark.parametrize("fusion", ["power", "lerp", "none"])
def test_the_ways_to_fuse_differ(unet, fusion):
    case = CASES["soft mask"]
    other = replace(case, options={"fusion": fusion})
    assert (ours(unet, case) - ours(unet, other)).abs().max() > NOTICED
