"""Edits computed as lists of tokens: what they equal, what they do not read, and what they never change."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.attention import begin, install
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.gates import cross_gate, self_gate, shared_gate
from stages.edit.prompt_to_prompt.local_blend import Blend
from stages.edit.sparse import plan
from stages.edit.sparse.unet import SparseUNet
from stages.models.diffusion.sampler import SCHEDULERS, sample
from tests.stages.sparse_emulation import EmulatedUNet, compute_all_as_lists

LENGTH, STEPS, SIDE, SELF_MAX = 10, 4, 16, 64
EXACT, NOTICED = 1e-11, 1e-4


@pytest.fixture(scope="module")
def dense() -> UNet2DConditionModel:
    """Three levels, attention on two; peaky attention, so that control matters."""
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=SIDE,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32, 32),
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
    return model.double().eval().requires_grad_(False).to(memory_format=torch.channels_last)


def mask(top: int, left: int, height: int, width: int, value: float = 1.0) -> torch.Tensor:
    """A region in units of latents, in pixels."""
    pixels = torch.zeros(8 * SIDE, 8 * SIDE)
    pixels[8 * top : 8 * (top + height), 8 * left : 8 * (left + width)] = value
    return pixels


def graded() -> torch.Tensor:
    pixels = mask(4, 3, 6, 6, 0.4)
    pixels[48:72, 40:60] = torch.linspace(0.5, 1, 20)
    return pixels


SMALL = mask(9, 10, 4, 3)
WHOLE = mask(0, 0, SIDE, SIDE)
NOTHING = WHOLE * 0


def edit(source: int, own_mask: torch.Tensor | None, self_until=0.5, *, shared=False, blend=None) -> EditRow:
    tokens = TokenMap(torch.eye(LENGTH).roll(1, 0), torch.zeros(LENGTH))
    gate = shared_gate(STEPS, 0.6) if shared else self_gate(STEPS, (0, self_until))
    words = Blend(*(torch.eye(LENGTH)[at] for at in (2, 3)), blend) if blend is not None else None
    cross = cross_gate(STEPS, LENGTH, (0, 0.6))
    return EditRow(source, tokens, cross, gate, shared=shared, mask=own_mask, blend=words)


def control(edits: list[EditRow], sources=2, guided=True, **options) -> PromptToPrompt:
    return PromptToPrompt(
        edits, sources, STEPS, SELF_MAX, torch.device("cpu"), torch.float64, guided=guided, **options
    )


def draw(unet, own, rows, guided=True, size=(SIDE, SIDE), captions=None) -> torch.Tensor:
    """Latents of the rows; ``rows`` are the numbers of their noises, ``captions`` of their captions."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(4, 4, *size, generator=generator, dtype=torch.float64)
    states = torch.randn(12, LENGTH, 16, generator=generator, dtype=torch.float64)
    states = states[captions or list(range(len(rows)))]
    empty = torch.randn(LENGTH, 16, generator=generator, dtype=torch.float64)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    scale = torch.full((len(rows),), 4.0)
    return sample(unet, scheduler, noise[rows], states, empty if guided else None, scale, STEPS, own)


def densely(dense, edits, rows, guided=True, size=(SIDE, SIDE), captions=None, **options) -> torch.Tensor:
    unet, own = copy.deepcopy(dense), control(edits, guided=guided, **options)
    begin(install(unet), own)
    return draw(unet, own, rows, guided, size, captions)


def sparsely(
    dense, edits, rows, guided=True, region="support", halo=0.0, size=(SIDE, SIDE), captions=None, **options
) -> torch.Tensor:
    unet, own = copy.deepcopy(dense), control(edits, guided=guided, **options)
    sparse = SparseUNet(unet, region, halo)
    sparse.begin(own, size)
    return draw(sparse, own, rows, guided, size, captions)


@pytest.fixture
def as_lists(monkeypatch):
    compute_all_as_lists(monkeypatch)


KINDS = {
    "guided": {},
    "without guidance": {"guided": False},
    "latents alone": {"mask_attention": False},
    "by lerp": {"fusion": "lerp"},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_list_of_all_tokens_equals_the_dense_path(dense, as_lists, options):
    edits = [edit(0, graded()), edit(0, graded(), 0), edit(1, WHOLE, shared=True), edit(1, graded())]
    rows = [0, 1, 0, 0, 1, 1]
    expected = densely(dense, edits, rows, **options)
    assert (sparsely(dense, edits, rows, **options) - expected).abs().max() < EXACT
    assert (expected[2:] - expected[[0, 0, 1, 1]]).abs().max() > NOTICED, "the edits do something"


def test_a_whole_picture_equals_the_dense_path(dense):
    edits, rows = [edit(0, WHOLE), edit(1, None), edit(1, graded())], [0, 1, 0, 1, 1]
    expected = densely(dense, edits, rows)
    found = sparsely(dense, edits, rows)
    assert (found[:4] - expected[:4]).abs().max() < EXACT
    assert (found[4] - expected[4]).abs().max() > NOTICED, "the third edit was computed as a list"


@pytest.mark.parametrize("region", ["support", "schedule"])
@pytest.mark.parametrize("halo", [0, 1])
def test_lists_equal_the_dense_path_with_the_sources_tokens_pasted_before_every_layer(dense, region, halo):
    edits = [edit(0, graded()), edit(0, SMALL, 0), edit(1, WHOLE), edit(1, NOTHING)]
    rows, own = [0, 1, 0, 0, 1, 1], control(edits)
    found = sparsely(dense, edits, rows, region=region, halo=halo / SIDE)
    emulated = EmulatedUNet(copy.deepcopy(dense), own, halo=halo, support=region == "support")
    expected = draw(emulated, own, rows)
    assert (found - expected).abs().max() < EXACT
    assert (found - densely(dense, edits, rows)).abs().max() > NOTICED, "sparsity is an approximation"


def test_group_norms_use_the_statistics_of_the_picture_with_the_edit_in_it(dense):
    """The source's own statistics lose objects; the emulation notices them."""
    edits, rows = [edit(0, graded()), edit(1, SMALL)], [0, 1, 0, 1]
    own = control(edits)
    emulated = EmulatedUNet(copy.deepcopy(dense), own, halo=0, support=True, source_statistics=True)
    found, wrong = sparsely(dense, edits, rows), draw(emulated, own, rows)
    assert (found[2:] - wrong[2:]).abs().max() > NOTICED


def test_nothing_is_computed_where_nothing_is_free(dense):
    edits, rows = [edit(0, NOTHING), edit(1, NOTHING)], [0, 1, 0, 1]
    found = sparsely(dense, edits, rows)
    assert torch.equal(found[2:], found[:2])


def test_outside_of_its_region_an_edit_is_its_source(dense):
    found = sparsely(dense, [edit(0, SMALL), edit(1, graded())], [0, 1, 0, 1])
    changed = (found[2] - found[0]).abs().amax(0) > 0
    assert changed[9:13, 10:13].all()
    changed[9:13, 10:13] = False
    assert not changed.any()


def test_edits_with_local_blend_are_computed_whole_beside_lists(dense):
    """As the dense path, which finds the same regions; also repeated ones."""
    blended, listed = edit(0, graded(), blend=0.6), edit(1, SMALL)
    rows, keys = [0, 1, 0, 1, 0], {"blend_tokens": 64, "captions": [0, 1, 2, 3, 2]}
    found = sparsely(dense, [blended, listed, blended], rows, **keys)
    expected = densely(dense, [blended, listed, blended], rows, **keys)
    assert (found[[2, 4]] - expected[[2, 4]]).abs().max() < EXACT
    without = sparsely(dense, [edit(0, graded()), listed], rows[:4])
    assert (found[2] - without[2]).abs().max() > NOTICED, "LocalBlend holds some of it"
    assert torch.equal(found[3], without[3])


def test_sources_are_drawn_as_they_are_drawn_alone(dense):
    found = sparsely(dense, [edit(0, SMALL), edit(1, graded())], [0, 1, 0, 1])
    alone = copy.deepcopy(dense)
    install(alone)
    assert torch.equal(found[:2], draw(alone, None, [0, 1]))


@pytest.mark.parametrize("size", [(8, 24), (24, 8)])
def test_pictures_need_not_be_square(dense, as_lists, size):
    pixels = torch.zeros(8 * size[0], 8 * size[1])
    pixels[: 4 * size[0], 2 * size[1] : 5 * size[1]] = 1
    edits, rows = [edit(0, pixels), edit(1, torch.ones_like(pixels))], [0, 1, 0, 1]
    found, expected = (way(dense, edits, rows, size=size) for way in (sparsely, densely))
    assert (found - expected).abs().max() < EXACT
    assert (found[2] - found[0]).abs().max() > NOTICED


def test_an_edit_does_not_depend_on_its_neighbours(dense):
    single, first = copy.deepcopy(dense).float(), edit(0, SMALL)

    def drawn(neighbours: list[EditRow]) -> torch.Tensor:
        unet = copy.deepcopy(single)
        own = PromptToPrompt([first, *neighbours], 2, STEPS, SELF_MAX, torch.device("cpu"))
        sparse = SparseUNet(unet, "schedule", 1 / SIDE)
        sparse.begin(own, (SIDE, SIDE))
        generator = torch.Generator().manual_seed(2)
        noise = torch.randn(2, 4, SIDE, SIDE, generator=generator)
        captions = torch.randn(3, LENGTH, 16, generator=generator)
        rows = [0, 1, 0] + [1] * len(neighbours)
        states = captions[[0, 1, 2] + [1] * len(neighbours)]
        scheduler, scale = DDIMScheduler(beta_schedule="scaled_linear"), torch.full((len(rows),), 4.0)
        return sample(sparse, scheduler, noise[rows], states, captions[0], scale, STEPS, own)

    alone = drawn([edit(1, NOTHING)])
    for others in ([edit(1, graded())], [edit(1, SMALL)], [edit(1, WHOLE), edit(1, SMALL.T)]):
        assert torch.equal(drawn(others)[2], alone[2])


def test_equal_edits_are_computed_once(dense, monkeypatch):
    one = edit(0, SMALL)
    calls = []
    monkeypatch.setattr(
        "stages.edit.sparse.unet.plan_step",
        lambda free, *rest, **keys: calls.append(sorted(free)) or plan.plan_step(free, *rest, **keys),
    )
    found = sparsely(dense, [one, one, edit(1, SMALL)], [0, 1, 0, 0, 1], captions=[0, 1, 2, 2, 3])
    assert torch.equal(found[2], found[3])
    assert calls == [[0, 2]]


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "lcm"])
def test_every_sampler_takes_it(dense, as_lists, sampler):
    edits, rows = [edit(0, graded()), edit(1, SMALL)], [0, 1, 0, 1]

    def drawn(sparse: bool) -> torch.Tensor:
        unet, own = copy.deepcopy(dense), control(edits)
        layers = install(unet)
        if sparse:
            unet = SparseUNet(unet, "support", 0.0)
            unet.begin(own, (SIDE, SIDE))
        else:
            begin(layers, own)
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(2, 4, SIDE, SIDE, generator=generator, dtype=torch.float64)[rows]
        captions = torch.randn(5, LENGTH, 16, generator=generator, dtype=torch.float64)
        scheduler = SCHEDULERS[sampler].from_config({"beta_schedule": "scaled_linear", "clip_sample": False})
        scale = torch.full((4,), 3.0)
        return sample(unet, scheduler, noise, captions[:4], captions[4], scale, 4, own, noise_seeds=rows)

    assert (drawn(True) - drawn(False)).abs().max() < 1e-4  # schedulers compute in float32 inside
