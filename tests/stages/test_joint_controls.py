"""All controls of joint attention against stored maps, on each family's whole transformer in float64."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.prompt_to_prompt.local_blend import Blend
from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.families.qwen import QwenNetwork
from stages.models.diffusion.families.sd3 import SD3Network
from tests.stages.joint_oracle import JointEdit, JointOracle
from tests.stages.test_joint_attention import SOFT, STEPS, TOKENS, T, at_tokens, peaky
from tests.stages.test_joint_attention import inputs as flux_inputs
from tests.stages.test_masked_attention import inputs as masked_inputs
from tests.stages.test_sd3_attention import inputs as sd3_inputs
from tests.stages.tiny_chat_pipelines import qwen_transformer
from tests.stages.tiny_pipelines import flux_transformer, sd3_transformer

STEP = 2
OPEN, LATE, CLOSED = (True,) * STEPS, (False, False, True, True), (False,) * STEPS
KINDS = ("qk", "p2p", "kv")


class Family:
    """A network, the batch that it is told, and how its layers lie in its blocks."""

    def __init__(self, network, inputs, guided: bool, layers: list[int]) -> None:
        self.network, self.inputs, self.guided, self.layers = network, inputs, guided, layers
        self.blocks = len(network.blocks)

    def copy(self):
        return type(self.network)(deepcopy(self.network.transformer))

    def predicted(self, core, rows: int) -> torch.Tensor:
        own = self.copy()
        core.install(own) if isinstance(core, JointAttention) else own.install(core)
        with torch.no_grad():
            return own(*self.inputs(rows)).sample


FAMILIES = {
    # Its text has padding: a map sees the tokens of the row whose keys it uses.
    "qwen": lambda: Family(
        QwenNetwork(peaky(qwen_transformer())), partial(masked_inputs, "qwen"), True, [0, 1, 2]
    ),
    "flux": lambda: Family(
        FluxNetwork(peaky(flux_transformer(guidance=True))), flux_inputs, False, [0, 1, 2, 3]
    ),
    "sd3": lambda: Family(SD3Network(peaky(sd3_transformer(False))), sd3_inputs, True, [0, 1, 2]),
    "sd35": lambda: Family(SD3Network(peaky(sd3_transformer(True))), sd3_inputs, True, [0, 0, 1, 1, 2]),
}


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request):
    return request.param()


def token_map(seed: int) -> TokenMap:
    """One token twice as long, one new one, one weighted; columns that sum to other numbers than 1."""
    generator = torch.Generator().manual_seed(seed)
    matrix, own = torch.eye(T), torch.zeros(T)
    matrix[:, 1] = torch.rand(T, generator=generator)
    matrix[:, 3], own[3] = 0, 1
    matrix[:, 4] *= 2.5
    return TokenMap(matrix, own)


def edit(
    source=0, picture=OPEN, text=OPEN, mask=None, blocks=(True,) * 4, seed=0, words=((), ())
) -> tuple[EditRow, JointEdit]:
    """An edit as our control reads it, and as the oracle does."""
    tokens = token_map(seed)
    gate = torch.tensor(text).float()[:, None].repeat(1, T)
    gate[0, 1] = 1 - gate[0, 1]
    gate[STEP, 2] = 1 - gate[STEP, 2]  # a token with a window of its own
    marked = [torch.zeros(T), torch.zeros(T)]
    for column, positions in zip(marked, words, strict=True):
        column[list(positions)] = 1
    row = EditRow(
        source,
        tokens,
        gate,
        torch.tensor(picture),
        mask=mask,
        blend=Blend(*marked) if any(words) else None,
        blocks=torch.tensor(blocks),
    )
    numbers = [number for number, chosen in enumerate(blocks) if chosen]
    pooled = None if mask is None else at_tokens(mask)
    return row, JointEdit(source, picture, pooled, numbers, gate, tokens.matrix, tokens.own, *words)


class Halves:
    """The oracle on unconditional and conditional rows apart: p2p acts on the latter alone."""

    def __init__(self, family: Family, kind: str, edits: list[JointEdit], step: int, **mistake) -> None:
        free = [replace(each, blocks=()) for each in edits]
        halves = [free if kind == "p2p" else edits, edits] if family.guided else [edits]
        self.halves = [JointOracle(each, step, kind=kind, blocks=family.layers, **mistake) for each in halves]

    def __call__(self, query, key, value, text_tokens):
        parts = (each.chunk(len(self.halves)) for each in (query, key, value))
        return torch.cat(
            [half(*heads, text_tokens) for half, *heads in zip(self.halves, *parts, strict=True)]
        )


def controlled(family: Family, kind: str, edits: list[EditRow], step: int, **options) -> JointControl:
    edits = [replace(each, shared=kind != "p2p", blocks=each.blocks[: family.blocks]) for each in edits]
    device = torch.device("cpu")
    control = JointControl(
        edits, 1, STEPS, kind, TOKENS, device, torch.float64, guided=family.guided, **options
    )
    control.before_step(step)
    return control


def ours(family: Family, kind: str, edits: list[EditRow], step: int = STEP, **options) -> torch.Tensor:
    core = JointAttention()
    core.control = controlled(family, kind, edits, step, **options)
    return family.predicted(core, 1 + len(edits))


FIRST, LAST = (True, False, False, False), (False, True, True, True)
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
    taking = torch.tensor(
        [
            (any(each.blocks)) and (each.self_[STEP] or (kind == "p2p" and each.cross[STEP].any()))
            for each in edits
        ]
    )
    assert (changed[taking] > 1e-2).all()
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
