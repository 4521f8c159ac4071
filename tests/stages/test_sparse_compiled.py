"""The sparse U-Net in compiled graphs, what its calls wait for, and its statistics in half precision."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.sparse import unet as sparse_unet
from stages.edit.sparse.group_norm import moments, normalise, pasted
from stages.edit.sparse.unet import GRAPHS, SparseUNet
from stages.models.diffusion.sampler import sample
from tests.stages.test_sparse_edits import EXACT, SIDE, SMALL, WHOLE, control, draw, edit, graded, mask

ROWS = [0, 1, 0, 1]
BATCHES = (
    [edit(0, SMALL), edit(1, mask(2, 2, 4, 3), 0)],
    [edit(0, mask(3, 3, 3, 3), 1), edit(1, mask(8, 2, 3, 4))],
    [edit(0, graded(), 0), edit(1, SMALL, shared=True)],
    [edit(1, graded()), edit(0, None)],
    [edit(1, WHOLE), edit(1, mask(0, 0, 5, 4))],
)
"""Sources, masks and gates differ from batch to batch; the last two have a whole picture."""


def unet_of(levels: int) -> UNet2DConditionModel:
    """A small U-Net with one attention, in its middle."""
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=SIDE,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        block_out_channels=(16,) * levels,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return model.double().eval().requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def small() -> UNet2DConditionModel:
    return unet_of(2)


def sparse_of(unet: UNet2DConditionModel, region="schedule") -> SparseUNet:
    own = copy.deepcopy(unet)
    return SparseUNet(own, region, 0.0)


def drawn(sparse: SparseUNet, edits) -> torch.Tensor:
    own = control(edits)
    sparse.begin(own, (SIDE, SIDE))
    return draw(sparse, own, ROWS)


def lengths(sparse: SparseUNet) -> set[int]:
    """Of the lists of a batch's calls; 0: a whole picture."""
    calls = [call for plan in sparse.plans for call in plan.calls]
    return {0 if call.lists is None else call.lists[0].shape[1] for call in calls}


@pytest.mark.parametrize(
    ("backend", "levels", "batches"),
    [("eager", 1, BATCHES[:3]), pytest.param("aot_eager", 2, BATCHES, marks=pytest.mark.full)],
)
def test_a_compiled_unet_has_one_graph_for_sources_and_one_a_list_length(backend, levels, batches):
    """Whatever the gates, masks and steps; and draws what the other draws."""
    plain, compiled = sparse_of(unet_of(levels)), sparse_of(unet_of(levels))
    torch._dynamo.reset()
    counters.clear()  # other tests of this process compile too
    try:
        keys = {"dynamic": False, "fullgraph": True, "recompile_limit": GRAPHS}
        compiled._compiled = torch.compile(compiled.unet, backend=backend, **keys)
        seen: set[int] = set()
        for edits in batches:
            found = drawn(compiled, edits)
            seen |= lengths(compiled)
            assert counters["stats"]["unique_graphs"] == 1 + len(seen)
            assert (found - drawn(plain, edits)).abs().max() < EXACT
    finally:
        torch._dynamo.reset()
    assert len(seen) == (2 if backend == "eager" else 4)
    assert not counters["graph_break"]


class NoSync(TorchDispatchMode):
    """Refuses operations that wait for a GPU: reading a value, shapes that follow from values, uploads."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "lift_fresh", "bincount")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not any(name.startswith(each) for each in self.waits), f"{func} waits for the GPU"
        if name.startswith("index"):  # a mask as an index waits too
            tensors = [each for arg in args if isinstance(arg, list | tuple) for each in arg]
            assert not any(each is not None and each.dtype == torch.bool for each in tensors)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "edits", [*BATCHES, [edit(0, graded()), edit(1, SMALL), edit(2, SMALL), edit(3, WHOLE)]]
)
def test_no_step_waits_for_the_gpu(small, edits):
    own, sparse = control(edits), sparse_of(small)
    sparse.begin(own, (SIDE, SIDE))
    rows = 2 + len(edits)
    latents, states = torch.randn(2 * rows, 4, SIDE, SIDE).double(), torch.randn(2 * rows, 10, 16).double()
    time = torch.tensor(500)
    own.before_sampling(states, (SIDE, SIDE))
    for step in range(own.steps):
        with NoSync():
            own.before_step(step)
            sparse(latents, time, states)
            own.after_step(step, latents[:rows])


@pytest.mark.parametrize("act", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: torch.tensor([1])])
def test_what_waits_is_noticed(act):
    values = torch.randn(4)
    with pytest.raises(AssertionError), NoSync():
        act(values)


@pytest.mark.parametrize("count", [2, 4])
def test_edits_that_share_a_call_do_not_depend_on_each_other(small, monkeypatch, count):
    """To the bit, in float32: beside edits of the same length, of other lengths, and repeated."""
    monkeypatch.setattr(sparse_unet, "EDITS_A_CALL", {"cpu": count})
    single, first = copy.deepcopy(small).float(), edit(0, SMALL)

    def of_first(*others) -> torch.Tensor:
        return drawn_in(single, [first, *others])[2]

    alone = of_first(edit(1, WHOLE))
    for others in ([edit(1, SMALL)], [edit(1, mask(2, 2, 4, 3)), edit(0, SMALL.T)], [edit(1, graded())]):
        assert torch.equal(of_first(*others), alone)


def drawn_in(unet: UNet2DConditionModel, edits) -> torch.Tensor:
    """Latents in float32."""
    own, sparse = PromptToPrompt(edits, 2, 4, 64, torch.device("cpu")), sparse_of(unet)
    sparse.begin(own, (SIDE, SIDE))
    generator = torch.Generator().manual_seed(2)
    noise, captions = (
        torch.randn(2, 4, SIDE, SIDE, generator=generator),
        torch.randn(8, 10, 16, generator=generator),
    )
    rows = [0, 1, *(each.source for each in edits)]
    scheduler, scale = DDIMScheduler(beta_schedule="scaled_linear"), torch.full((len(rows),), 4.0)
    return sample(sparse, scheduler, noise[rows], captions[: len(rows)], captions[-1], scale, 4, own)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pasted_statistics_are_exact_in_half_precision(dtype):
    """Against float64 from the same tokens; statistics in half precision are far off."""
    torch.manual_seed(0)
    whole = (torch.randn(1, 4096, 32) * 0.5 + 2).to(dtype)
    places, norm = torch.arange(900, 1400), torch.nn.GroupNorm(8, 32)
    new = (torch.randn(1, 500, 32) + 3).to(dtype)
    given = pasted(moments(whole, 8), moments(whole[:, places], 8), moments(new, 8))
    picture = whole.double().index_copy(1, places, new.double())
    groups = picture.unflatten(2, (8, 4))
    mean, variance = groups.mean((1, 3)), groups.var((1, 3), correction=0)
    assert (given.mean - mean).abs().max() < 1e-5
    assert ((given.deviation / given.count) / variance - 1).abs().max() < 5e-4
    halved = picture.to(dtype).unflatten(2, (8, 4))
    assert ((halved**2).mean((1, 3)) - halved.mean((1, 3)) ** 2 - variance).abs().max() > 5e-4
    expected = norm.double()(picture.transpose(1, 2)).transpose(1, 2)[:, places]
    found = normalise(new, given, norm.to(torch.float32)).double()
    rounding = torch.finfo(dtype).eps * (expected.abs().max() + 12)  # of the values and of their shift
    assert (found - expected).abs().max() < rounding
