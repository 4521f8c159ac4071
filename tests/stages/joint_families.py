"""Transformers of each family with controlled edits, as our control reads them and as the oracle does."""

from copy import deepcopy
from dataclasses import replace

import torch

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.prompt_to_prompt.local_blend import Blend
from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.families.sd3 import SD3Network
from tests.stages.joint_oracle import JointEdit, JointOracle
from tests.stages.test_joint_attention import STEPS, TOKENS, T, at_tokens, peaky
from tests.stages.test_joint_attention import inputs as flux_inputs
from tests.stages.test_sd3_attention import inputs as sd3_inputs
from tests.stages.tiny_pipelines import flux_transformer, sd3_transformer

STEP = 2
OPEN, LATE, CLOSED = (True,) * STEPS, (False, False, True, True), (False,) * STEPS
FIRST, LAST = (True, False, False, False), (False, True, True, True)
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
    "flux": lambda: Family(
        FluxNetwork(peaky(flux_transformer(guidance=True))), flux_inputs, False, [0, 1, 2, 3]
    ),
    "sd3": lambda: Family(SD3Network(peaky(sd3_transformer(False))), sd3_inputs, True, [0, 1, 2]),
    "sd35": lambda: Family(SD3Network(peaky(sd3_transformer(True))), sd3_inputs, True, [0, 0, 1, 1, 2]),
}


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
