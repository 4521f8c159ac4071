"""Memory of controlled transformers at full widths, counted on fake tensors, against what ``check`` tells."""

import weakref

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.sparse_flops import FAKE
from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.sparse.joint import SparseTransformer
from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.memory import MAPS_COPIES, joint_bytes

SIDE, TEXT, EDITS = 64, 512, 4
CONFIG = {"num_attention_heads": 24, "attention_head_dim": 128}
ROW = joint_bytes(CONFIG, SIDE * SIDE + TEXT, 4)


class Living(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and not yet freed."""

    def __init__(self, kept: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = {each.untyped_storage()._cdata for each in kept.parameters()}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self.count(tensor.untyped_storage())
        return output

    def count(self, storage) -> None:
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())

    def freed(self, number: int, size: int) -> None:
        self.known.discard(number)
        self.now -= size


def peak(blocks: int, kind: str, *, region: bool) -> int:
    """Bytes of a step of one source and its edits of a quarter of the picture."""
    with FAKE:
        network = FluxNetwork(FluxTransformer2DModel(num_layers=blocks, num_single_layers=blocks))
    attention, mask = JointAttention(hold=True), torch.zeros(16 * SIDE, 16 * SIDE)
    attention.install(network)
    mask[: 8 * SIDE, : 8 * SIDE] = 1
    tokens, gate = TokenMap(torch.eye(TEXT), torch.arange(TEXT) % 2.0), torch.ones(1, dtype=torch.bool)
    rows = [
        EditRow(0, tokens, torch.ones(1, TEXT), gate, kind != "p2p", mask, None, torch.ones(2 * blocks) > 0)
        for _ in range(EDITS)
    ]
    cpu, options = torch.device("cpu"), {"guided": False, "mask_attention": False}
    control = JointControl(rows, 1, 1, kind, SIDE * SIDE, cpu, **options)
    call = network
    if region:
        call = SparseTransformer(network, attention)
        call.begin(control, (SIDE, SIDE))
    else:
        attention.control = control
    control.before_step(0)
    with FAKE:
        latents = torch.empty(1 + EDITS, 16, 2 * SIDE, 2 * SIDE)
        states, pooled = torch.empty(1 + EDITS, TEXT, 4096), torch.empty(1 + EDITS, 768)
    with FAKE, Living(network) as living, torch.no_grad():
        call(latents, torch.tensor(500.0), states, None, {"pooled": pooled})
    return living.peak


@pytest.mark.parametrize("kind", [pytest.param("qk", marks=pytest.mark.full), "p2p"])
def test_edits_in_their_regions_take_less_than_whole_ones_however_many_blocks_there_are(kind):
    few, many = (peak(blocks, kind, region=True) for blocks in (1, 2))
    assert many <= few * 1.01, "no block's keys and values are kept"
    assert ROW < many < 0.35 * (1 + EDITS) * ROW


def test_maps_take_what_the_check_tells():
    told = (1 + EDITS) * joint_bytes(CONFIG, SIDE * SIDE + TEXT, 4, MAPS_COPIES)
    assert 0.85 * told < peak(1, "p2p", region=False) < told
