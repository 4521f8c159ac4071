"""Pipelines that edit by instructions and have their latents in tokens: sizes, layout, guidance."""

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline

from stages.models.editors import EditorConfig, InstructionEdit
from stages.models.editors.pipelines import PipelineEditor
from tests.stages.tiny_editors import qwen_edit_reads_pictures_of, save_kontext, save_qwen_edit

SIDE = 32
SAVED = {
    "kontext": save_kontext,
    "qwen": lambda folder: save_qwen_edit(folder, QwenImageEditPipeline),
    "qwen plus": lambda folder: save_qwen_edit(folder, QwenImageEditPlusPipeline),
}


@pytest.fixture(scope="module", params=SAVED)
def editor(request, tmp_path_factory):
    folder = SAVED[request.param](tmp_path_factory.mktemp("editor"))
    with qwen_edit_reads_pictures_of(SIDE):
        yield PipelineEditor(EditorConfig(model=str(folder), steps=2, guidance_scale=3.0))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def edited(editor, before: np.ndarray, guidance: float = 3.0, joined=None, instruction: str = "a red car"):
    def untouched(step, steps, latents, known, mask):
        return latents

    mask = np.ones(before.shape[:2], np.float32)
    asked = InstructionEdit(before, instruction, "local", 3, guidance, mask)
    return editor.edit(asked, joined or untouched)


@pytest.mark.parametrize("size", [(SIDE, 2 * SIDE), (2 * SIDE, SIDE)])
def test_a_pictures_latents_are_the_pipelines_own_and_its_size_stays(editor, size):
    """To the bit, in the pipeline's layout."""
    before, given = picture(*size), []

    def kept(step, steps, latents, known, mask):
        given.append((step, steps, latents, known, mask))
        return latents

    assert edited(editor, before, joined=kept).shape == before.shape
    pixels = torch.from_numpy(before).permute(2, 0, 1)[None].float() / 127.5 - 1
    if editor.name != "FluxKontextPipeline":
        pixels = pixels[:, :, None]
    with torch.no_grad():
        own = editor.pipeline._encode_vae_image(pixels, None)
    packed = editor.pipeline._pack_latents(own, 1, 4, size[0] // 2, size[1] // 2)
    assert [each[:2] for each in given] == [(0, 2), (1, 2)]
    _, _, latents, known, mask = given[-1]
    assert torch.equal(known, packed)
    assert latents.shape == known.shape == mask.shape


def test_latents_tied_to_the_pictures_draw_the_picture(editor):
    """As the VAE alone draws it."""
    before = picture(SIDE, SIDE)
    drawn = edited(editor, before, joined=lambda step, steps, latents, known, mask: known)
    with torch.no_grad():
        pixels = editor.vae.decode(editor.vae.encode_picture(before))[0].permute(1, 2, 0)
    expected = (pixels / 2 + 0.5).clamp(0, 1) * 255
    assert (torch.from_numpy(drawn) - expected).abs().max() < 0.6, "half a level, by rounding"


def test_the_guidance_and_the_instruction_have_an_effect(editor):
    before = picture(SIDE, SIDE)
    drawn = edited(editor, before)
    assert np.array_equal(drawn, edited(editor, before))
    assert not np.array_equal(drawn, edited(editor, before, guidance=7.0))
    assert not np.array_equal(drawn, edited(editor, before, instruction="a blue ball in the snow"))
