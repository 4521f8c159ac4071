"""All controls of joint attention against stored maps, on each family's whole transformer in float64."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.models.diffusion.families.qwen import QwenNetwork
from tests.stages.joint_families import (
    CLOSED,
    FAMILIES,
    FIRST,
    KINDS,
    LAST,
    LATE,
    STEP,
    Family,
    Halves,
    controlled,
    edit,
)
from tests.stages.test_joint_attention import SOFT, STEPS, TOKENS, T, peaky
from tests.stages.test_masked_attention import inputs as masked_inputs
from tests.stages.tiny_chat_pipelines import qwen_transformer

CONTROLLED = {
    **FAMILIES,
    # Its text has padding: a map sees the tokens of the row whose keys it uses.
    "qwen": lambda: Family(
        QwenNetwork(peaky(qwen_transformer())), partial(masked_inputs, "qwen"), True, [0, 1, 2]
    ),
}


@pytest.fixture(scope="module", params=CONTROLLED.values(), ids=CONTROLLED)
def family(request):
    return request.param()


def ours(family: Family, kind: str, edits: list[EditRow], step: int = STEP, **options) -> torch.Tensor:
    core = JointAttention()
    core.control = controlled(family, kind, edits, step, **options)
    return family.predicted(core, 1 + len(edits))


CASES = {
    "one edit": [edit()],
    "gates of its own for text and picture": [edit(picture=CLOSED), edit(text=CLOSED, seed=1)],
    "some blocks": [edit(blocks=FIRST), edit(blocks=LAST, seed=1), edit(blocks=(False,) * 4)],
    "a session of three turns": [
        edit(),
        edit(picture=LATE, seed=1),
        edit(1, text=LATE, seed=2),
        edit(2, blocks=LAST, seed=3),
        edit(3, picture=CLOSED, seed=4),
    ],
    "a soft mask in a session": [edit(mask=SOFT), edit(1, mask=SOFT.flip(1), seed=1)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_what_stored_maps_give(family, kind, case):
    edits, expected = ([each[side] for each in case] for side in (0, 1))
    oracle = Halves(family, kind, expected, STEP)
    rows = 1 + len(case)
    drawn, plain = ours(family, kind, edits), family.predicted(JointAttention(), rows)
    assert (drawn - family.predicted(oracle, rows)).abs().max() < 1e-11
    first = [0, rows] if family.guided else [0]
    assert torch.equal(drawn[first], plain[first]), "a source is not changed"
    changed = (drawn - plain).abs().amax((1, 2, 3))[-len(case) :]
    for row, change in zip(edits, changed, strict=True):
        if any(row.blocks) and (row.self_[STEP] or (kind == "p2p" and row.cross[STEP].any())):
            assert change > 1e-2
    for stored in oracle.halves[-1].maps:
        assert (stored.sum(-1) - 1).abs().max() < 1e-12, "rows of the maps sum to 1"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "mistake",
    [{"skipped_layers": (1,)}, {"skipped_layers": (2,)}, {"skipped_tokens": (7,)}],
    ids=["a layer", "another layer", "a token"],
)
def test_a_layer_or_a_token_without_control_is_noticed(family, kind, mistake):
    row, expected = edit()
    wrong = family.predicted(Halves(family, kind, [expected], STEP, **mistake), 2)
    assert (ours(family, kind, [row]) - wrong).abs().max() > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        edit(picture=CLOSED)[0],
        edit(blocks=LAST)[0],
        replace(edit()[0], cross=torch.zeros(STEPS, T)),
        replace(edit()[0], tokens=TokenMap(torch.eye(T), torch.zeros(T))),
    ],
    ids=["the picture's gate", "a block", "the text's gate", "the token map"],
)
def test_each_part_of_an_edit_matters_to_p2p(family, wrong):
    assert (ours(family, "p2p", [edit()[0]]) - ours(family, "p2p", [wrong])).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["qk", "kv"])
@pytest.mark.parametrize(
    "wrong", [edit(picture=CLOSED)[0], edit(blocks=LAST)[0]], ids=["the gate", "a block"]
)
def test_gate_and_blocks_matter_to_qk_and_kv(family, kind, wrong):
    assert (ours(family, kind, [edit()[0]]) - ours(family, kind, [wrong])).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_one_step_off_is_noticed(family, kind):
    row = edit(picture=LATE, text=LATE)[0]
    early, late = (ours(family, kind, [row], step) for step in (1, 2))
    assert (early - late).abs().max() > 1e-3


def test_without_the_division_by_row_sums_p2p_is_another_one(family):
    row, expected = edit(picture=CLOSED)
    raw = family.predicted(Halves(family, "p2p", [expected], STEP, normalised=False), 2)
    assert (ours(family, "p2p", [row]) - raw).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [T, 0], ids=["text and picture", "picture alone"])
def test_rows_of_the_map_sum_to_one(family, kind, text):
    core = JointAttention()
    core.control = controlled(family, kind, [edit(picture=CLOSED)[0], edit(1)[0]], STEP)
    generator = torch.Generator().manual_seed(6)
    shape = (2, 6 if family.guided else 3, 2, text + TOKENS, 16)
    query, key = torch.randn(shape, generator=generator).double()
    assert (core(query, key, torch.ones_like(key), text) - 1).abs().max() < 1e-12


def test_p2p_leaves_unconditional_rows_alone():
    family = FAMILIES["sd35"]()
    drawn, plain = ours(family, "p2p", [edit()[0]]), family.predicted(JointAttention(), 2)
    assert (drawn[:2] - plain[:2]).abs().max() < 1e-12
    assert (drawn[3] - plain[3]).abs().max() > 1e-2


def test_all_of_an_equal_captions_map_is_the_sources():
    query, key, value = torch.randn(3, 2, 2, T + TOKENS, 16, generator=torch.Generator().manual_seed(7))
    same = replace(edit()[0], tokens=TokenMap(torch.eye(T), torch.zeros(T)), cross=torch.ones(STEPS, T))
    core = JointAttention()
    core.control = controlled(FAMILIES["flux"](), "p2p", [same], STEP)
    picture = core(query.double(), key.double(), value.double(), T)[1, :, T:]
    expected = sdpa(query[0].double(), key[0].double(), value[1].double())[:, T:]
    assert (picture - expected).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_followed_words_are_those_of_stored_maps(family, kind):
    """LocalBlend's sums over heads and joint layers, in a session too; the drawing is the same."""
    case = [
        edit(words=((1, 2), (3,))),
        edit(seed=1),
        edit(1, picture=LATE, seed=2, blocks=LAST, words=((0,), (1, 4))),
        edit(2, picture=CLOSED, text=CLOSED, seed=3, words=((3,), ())),
    ]
    edits, expected = ([each[side] for each in case] for side in (0, 1))
    core = JointAttention()
    core.control = controlled(family, kind, edits, STEP)
    drawn = family.predicted(core, 5)
    oracle = Halves(family, kind, expected, STEP)
    family.predicted(oracle, 5)
    for number in range(4):
        for name, ours_ in (("source", core.control.source_maps), ("target", core.control.target_maps)):
            assert (ours_[number] - oracle.halves[-1].followed[name, number]).abs().max() < 1e-11
    assert core.control.target_maps[0].max() > 0.1
    without = ours(family, kind, [replace(each, blend=None) for each in edits])
    assert (drawn - without).abs().max() < 1e-12
