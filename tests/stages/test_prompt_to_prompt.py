"""Prompt-to-Prompt on the toybox's own model: the soft mask's promises, gates and batches."""

import numpy as np
import pytest
import torch

from stages.edit.prompt_to_prompt.alignment import token_map, tokenize
from stages.edit.prompt_to_prompt.attention import begin, install
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.gates import cross_gate, self_gate
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.model import Diffusion
from tests.stages.compiled import compiled_eagerly
from tests.stages.tiny_pipelines import save_stable_diffusion

STEPS = 8
SOURCE, TARGET = "a red ball in a meadow", "a blue ball in a meadow"


@pytest.fixture(scope="module")
def model() -> Diffusion:
    config = DiffusionConfig(model="toybox/weights/diffusion", steps=STEPS, guidance_scale=4.0)
    return Diffusion(config)


@pytest.fixture(scope="module")
def layers(model):
    return install(model.unet)


def draw(model, layers, masks, cross_until=0.5, self_until=0.3, seeds=None, targets=None, **options):
    """Latents of the sources, then of one edit a mask (None: no mask), all edits of one caption."""
    targets = targets or [TARGET] * len(masks)
    seeds = seeds or [5] * len(masks)
    encoder = model.prompts
    source = tokenize(encoder.tokenizer, SOURCE)
    edits = [
        EditRow(
            index,
            token_map(source, tokenize(encoder.tokenizer, target), encoder.context_length),
            cross_gate(STEPS, encoder.context_length, (0, cross_until)),
            self_gate(STEPS, (0, self_until)),
            mask=mask,
        )
        for index, (mask, target) in enumerate(zip(masks, targets, strict=True))
    ]
    control = PromptToPrompt(edits, len(masks), STEPS, 256, model.device, **options)
    begin(layers, control)
    noise = model.initial_latents(seeds)
    prompts = encoder.encode([SOURCE] * len(masks) + targets)
    guidance = torch.full((2 * len(masks),), 4.0)
    return model.sample(torch.cat([noise, noise]), prompts, guidance, seeds + seeds, control).chunk(2)


def plain(model, layers, prompt):
    """Latents of one prompt, sampled without a control."""
    begin(layers, None)
    encoded = model.prompts.encode([prompt])
    return model.sample(model.initial_latents([5]), encoded, torch.tensor([4.0]), [5])


def constant(value: float) -> torch.Tensor:
    return torch.full((64, 64), value)


def test_a_mask_of_ones_equals_no_mask(model, layers):
    _, with_mask = draw(model, layers, [constant(1.0)])
    _, without = draw(model, layers, [None])
    assert torch.equal(with_mask, without)


def test_a_mask_of_zeros_gives_the_sources_latents(model, layers):
    sources, edits = draw(model, layers, [constant(0.0)])
    assert torch.equal(sources, edits)


def test_the_change_grows_with_the_mask(model, layers):
    levels = [0.0, 0.25, 0.5, 0.75, 1.0]
    sources, edits = draw(model, layers, [constant(level) for level in levels])
    change = (edits - sources).abs().mean((1, 2, 3)).tolist()
    assert change == sorted(change)
    assert change[0] == 0
    assert change[2] >= change[4] / 4
    assert change[4] > 0.05, "the edit does something"


def test_outside_a_mask_the_latents_are_the_sources(model, layers):
    mask = constant(0.0)
    mask[16:48, 16:48] = 1
    sources, edits = draw(model, layers, [mask])
    changed = (edits - sources).abs().amax((0, 1)) > 0
    assert changed[4:12, 4:12].any()
    changed[4:12, 4:12] = False
    assert not changed.any()


def test_the_source_row_is_what_plain_sampling_gives(model, layers):
    sources, _ = draw(model, layers, [None])
    assert (plain(model, layers, SOURCE) - sources).abs().max() < 1e-3


def test_a_row_does_not_depend_on_its_neighbours(model, layers):
    others = ["a green ball in a meadow", "a purple ball in a meadow"]
    _, first = draw(model, layers, [None, None], seeds=[5, 6], targets=[TARGET, others[0]])
    _, second = draw(model, layers, [None, None], seeds=[5, 7], targets=[TARGET, others[1]])
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_closed_gates_are_plain_sampling_of_the_target(model, layers):
    _, edits = draw(model, layers, [None], cross_until=0, self_until=0)
    assert (plain(model, layers, TARGET) - edits).abs().max() < 1e-3


def test_open_gates_keep_the_picture_closer_to_the_source(model, layers):
    def distance(cross_until, self_until):
        sources, edits = draw(model, layers, [None], cross_until, self_until)
        return float((sources - edits).abs().mean())

    assert distance(1.0, 1.0) < distance(0.0, 0.0)


def test_decoded_pictures_are_bytes_of_the_right_size(model):
    images, _ = model.decode(model.initial_latents([1, 2]))
    assert images.dtype == np.uint8
    assert images.shape == (2, 64, 64, 3)


def test_noise_is_the_rows_own(model):
    both = model.initial_latents([1, 2])
    assert torch.equal(both[1:], model.initial_latents([2]))
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("size", ["tiny", pytest.param("toybox", marks=pytest.mark.full)])
def test_a_compiled_unet_draws_the_same_and_is_compiled_once(size, tmp_path, monkeypatch):
    """All steps of all batches of a shape are one graph, whatever gates are open in them.

    With dynamo's own backend: what would make it compile again is the same on a GPU.
    """
    folder = "toybox/weights/diffusion" if size == "toybox" else save_stable_diffusion(tmp_path)
    model = Diffusion(DiffusionConfig(model=str(folder), steps=STEPS, guidance_scale=4.0))
    layers = install(model.unet)
    mask = torch.zeros(64, 64)
    mask[20:40, 20:40] = 0.7
    batches = [
        {"seeds": [5]},
        {"seeds": [6], "cross_until": 0.0, "self_until": 0.0},
        {"seeds": [5], "targets": ["a dotted blue ball in a meadow"], "self_until": 0.7},
    ]
    eager = [draw(model, layers, [mask], **batch) for batch in batches]
    with compiled_eagerly(monkeypatch) as graphs:
        model.unet = torch.compile(model.unet)
        for batch, (source, edit) in zip(batches, eager, strict=True):
            compiled_source, compiled_edit = draw(model, layers, [mask], compiled=True, **batch)
            assert torch.equal(compiled_source, source)
            assert torch.equal(compiled_edit, edit)
            assert graphs() == 1
