"""The editor's networks: equal to the text-to-image model at the start, saved, loaded and guided."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st

from editor.model.loading import load_editor, load_guidance, load_or_begin, new_editor, save_editor
from editor.model.network import Guidance
from editor.model.task_table import TaskTable
from editor.model.unet import EditorUNet
from editor.model.words import add_words
from pipeline.errors import UserError
from stages.base import Weights
from stages.models.diffusion.prompts import PromptEncoder
from tests.editor.tiny_editor import SIDE
from tests.stages.tiny_pipelines import save_sdxl, save_stable_diffusion
from tests.stages.tiny_shards import TASKS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"sd": save_stable_diffusion(root / "sd"), "sdxl": save_sdxl(root / "sdxl")}


def begun(folder):
    torch.manual_seed(0)
    return new_editor(Weights(model=str(folder)), "base.model", TASKS, zero_terminal_snr=False)


def inputs(unet, rows=2):
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(rows, unet.config.in_channels, 8, 8, generator=random)
    states = torch.randn(rows, 5, unet.config.cross_attention_dim, generator=random)
    return latents, torch.tensor([5, 900][:rows]), states


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_new_editor_predicts_what_its_text_to_image_model_predicts(folders, family):
    source = UNet2DConditionModel.from_pretrained(folders[family] / "unet").eval()
    unet = begun(folders[family]).unet
    latents, times, states = inputs(source)
    added = {"text_embeds": torch.randn(2, 8), "time_ids": torch.zeros(2, 6)} if family == "sdxl" else None
    with torch.no_grad():
        expected = source(latents, times, states, added_cond_kwargs=added).sample
        joined = torch.cat([latents, torch.randn_like(latents)], 1)
        assert torch.equal(unet(joined, times, states, added_cond_kwargs=added).sample, expected)


def test_the_task_vector_reaches_the_time_embedding_and_cross_attention(folders):
    unet = begun(folders["sd"]).unet
    latents, times, states = inputs(unet)
    other = states.clone()
    other[:, -1] += 1
    with torch.no_grad():
        # With a projection of zero, only cross-attention can see the vector.
        assert not torch.equal(unet(latents, times, states).sample, unet(latents, times, other).sample)
        seen = []
        unet.class_embedding.register_forward_hook(lambda module, arguments, output: seen.append(output))
        unet.task_projection.weight.normal_()
        unet(latents, times, other)
    assert torch.allclose(seen[0], other[:, -1] @ unet.task_projection.weight.T)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_an_editor_is_the_same_after_saving_and_loading(folders, family, tmp_path):
    network = begun(folders[family])
    torch.nn.init.normal_(network.unet.task_projection.weight)
    save_editor(network, tmp_path / "editor", Guidance(2.0, 1.0, 4))
    again = load_editor(Weights(model=str(tmp_path / "editor")))
    assert isinstance(again.unet, EditorUNet)
    assert again.table.names == network.table.names == ["remove", "add", "background", "detect"]
    for part in ("unet", "table", "vae"):
        for name, tensor in getattr(network, part).state_dict().items():
            assert torch.equal(getattr(again, part).state_dict()[name], tensor), (part, name)
    assert load_guidance(tmp_path / "editor") == Guidance(2.0, 1.0, 4)
    assert json.loads((tmp_path / "editor/unet/config.json").read_text())["in_channels"] == 8


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_guidance_weighs_three_predictions_as_instruct_pix2pix(folders, family, monkeypatch):
    network = begun(folders[family])
    torch.nn.init.normal_(network.unet.task_projection.weight)
    latents = torch.randn(1, 4, 8, 8)
    given_to, predictions = [], []
    own = network.unet.forward

    def forward(sample, *arguments, **options):
        output = own(sample, *arguments, **options)
        given_to.append((sample, options["encoder_hidden_states"]))
        predictions.append(output[0])
        return output

    monkeypatch.setattr(network.unet, "forward", forward)
    steps = []
    step = network.scheduler.step
    monkeypatch.setattr(network.scheduler, "step", lambda x, *a, **k: steps.append(x) or step(x, *a, **k))
    network.edit(latents, ["remove it"], network.vectors([0]), Guidance(5.0, 1.5, 1), [3])
    text, image, nothing = predictions[0]
    assert torch.allclose(steps[0][0], nothing + 5.0 * (text - image) + 1.5 * (image - nothing), atol=1e-5)
    sample, states = given_to[0]
    assert torch.equal(sample[:2, 4:], latents.expand(2, -1, -1, -1))
    assert not sample[2, 4:].any()
    assert torch.equal(states[:, -1], network.vectors([0]).expand(3, -1)), "the task is never dropped"
    assert torch.equal(states[1], states[2])


def test_a_pipeline_of_diffusers_runs_an_editor_without_our_code(folders, tmp_path):
    network = begun(folders["sd"])
    save_editor(network, tmp_path / "editor", Guidance())
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "editor")
    assert type(pipeline).__name__ == "StableDiffusionInstructPix2PixPipeline"
    states = network.conditions(["remove it"], network.vectors([0])).states
    empty = network.conditions([""], network.vectors([0])).states
    image = torch.rand(1, 3, SIDE, SIDE)
    result = pipeline(
        image=image,
        prompt_embeds=states,
        negative_prompt_embeds=empty,
        num_inference_steps=1,
        output_type="np",
    )
    assert result.images.shape == (1, SIDE, SIDE, 3)


def test_the_text_free_condition_of_sdxl_is_zero(folders):
    network = begun(folders["sdxl"])
    conditions = network.conditions(["", "remove it"], network.vectors([0, 0]))
    assert not conditions.states[0, :-1].any()
    assert not conditions.pooled[0].any()
    expected = PromptEncoder(network.pipeline).encode(["remove it"])
    assert torch.allclose(conditions.states[1, :-1], expected.states[0])


def test_a_text_to_image_model_is_no_editor_and_the_message_says_what_to_do(folders):
    with pytest.raises(UserError, match="not an editor of editpairs: train"):
        load_editor(Weights(model=str(folders["sd"])))


def test_an_editor_without_its_task_table_is_refused(folders, tmp_path):
    network = begun(folders["sd"])
    save_editor(network, tmp_path / "editor", Guidance())
    (tmp_path / "editor/tasks").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="its task vectors are missing"):
        load_editor(Weights(model=str(tmp_path / "editor")))


def test_an_editor_is_trained_further_with_the_table_it_has(folders, tmp_path):
    network = begun(folders["sd"])
    save_editor(network, tmp_path / "editor", Guidance())
    again = load_or_begin(Weights(model=str(tmp_path / "editor")), "base.model", {}, False)
    assert torch.equal(again.table.vectors.weight, network.table.vectors.weight)


def test_zero_terminal_snr_needs_a_model_that_predicts_v(folders):
    with pytest.raises(UserError, match=r"training\.zero_terminal_snr to false"):
        new_editor(Weights(model=str(folders["sd"])), "base.model", TASKS, zero_terminal_snr=True)


@given(st.permutations([(7, "a"), (0, "b"), (300, "c")]))
def test_a_task_table_finds_rows_by_index_and_name(entries):
    indices, names = [index for index, _ in entries], [name for _, name in entries]
    table = TaskTable(names, indices, 4)
    assert table.rows([300, 7]) == [indices.index(300), indices.index(7)]
    assert table.row("b") == names.index("b")
    with pytest.raises(ValueError, match=r"no task has the index 5; tasks of this editor: "):
        table.rows([7, 5])
    with pytest.raises(ValueError, match=r"there is no task 'd'; tasks of this editor: .*b \(0\)"):
        table.row("d")


def test_a_new_task_leaves_the_other_vectors_as_they_are():
    table = TaskTable(["a", "b"], [0, 1], 4)
    larger = table.with_task("c", 9, torch.ones(4))
    assert torch.equal(larger.vectors.weight[:2], table.vectors.weight)
    assert torch.equal(larger.vectors.weight[2], torch.ones(4))
    assert (larger.names, larger.indices) == (["a", "b", "c"], [0, 1, 9])
    for name, index, message in (("a", 5, "a task 'a' already"), ("d", 1, "index 1 already")):
        with pytest.raises(ValueError, match=message):
            table.with_task(name, index, torch.ones(4))


def test_new_words_become_one_token_each_and_known_ones_stay(folders, tmp_path):
    network = begun(folders["sd"])
    before = network.pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    assert add_words(network, ["remove the car", "Swap the car"]) == ["remove", "swap"]
    assert add_words(network, ["remove the car"]) == []
    after = network.pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(after[: len(before)], before)
    save_editor(network, tmp_path / "editor", Guidance())
    again = load_editor(Weights(model=str(tmp_path / "editor")))
    ids = again.pipeline.tokenizer("swap the car", add_special_tokens=False).input_ids
    assert len(ids) == 3
    assert torch.equal(
        again.prompts.encode(["swap the car"]).states,
        PromptEncoder(network.pipeline).encode(["swap the car"]).states,
    )
