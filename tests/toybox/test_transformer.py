"""The toybox's transformer: how its training begins, what its states are to name, and what it draws."""

import numpy as np
import pytest
import torch

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.model import Diffusion
from toybox.evaluation.evaluate import draw
from toybox.evaluation.judge import Judge
from toybox.recipes import train_transformer
from toybox.recipes.scene_content import content_of
from toybox.recipes.scenes import LATENT_SIDE, Scenes, encoded_scenes
from toybox.recipes.train_autoencoder import load_autoencoder
from toybox.recipes.train_transformer import Denoiser, noise_levels
from toybox.recipes.transformer import CLIP_WIDTHS, FOLDER, Texts, build_clip, build_t5, build_transformer
from toybox.world.scene import COLORS, KINDS, caption, sample_held_out_scene, sample_training_scene


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("toybox.recipes.scenes.BUILD", tmp_path_factory.mktemp("build") / "new")
        return encoded_scenes(load_autoencoder(), 8)


def test_contents_are_those_of_the_encoded_scenes(scenes):
    content = content_of(scenes)
    for maps in (content.kinds, content.colors):
        assert torch.allclose(maps.float().sum(1), torch.ones(8, LATENT_SIDE, LATENT_SIDE), atol=2e-3)
    for row in range(8):
        scene = sample_training_scene(np.random.default_rng([4, row]))
        shown = {KINDS[k] for k in range(len(KINDS)) if content.kinds[row, k].max() > 0.5}
        assert shown == {thing.kind for thing in scene.things}
        colors = {name for k, name in enumerate(COLORS) if content.colors[row, k].max() > 0.5}
        assert colors == {thing.color for thing in scene.things}
        assert bool(content.nights[row]) is (scene.time == "night")


def denoiser(scenes: Scenes) -> Denoiser:
    from stages.tasks import load_tasks
    from toybox.recipes.tokenizer import build_tokenizer
    from toybox.recipes.train_language_model import PROMPTS
    from toybox.recipes.train_task_predictor import t5_tokenizer
    from toybox.world.answers import TASKS

    torch.manual_seed(0)
    tokenizer, words = build_tokenizer(), t5_tokenizer(load_tasks(PROMPTS, names=TASKS))
    texts = Texts([build_clip(tokenizer, width) for width in CLIP_WIDTHS], build_t5(words))
    captions = [text for forms in scenes.captions for text in forms]
    tokens = [train_transformer.padded(each, captions).unflatten(0, (8, -1)) for each in (tokenizer, words)]
    empty = [train_transformer.padded(each, [""])[0] for each in (tokenizer, words)]
    return Denoiser(build_transformer(), texts, scenes, tuple(tokens), tuple(empty))


def test_a_new_transformer_predicts_nothing_and_every_part_of_it_learns(scenes, monkeypatch):
    monkeypatch.setattr(train_transformer, "BATCH", 4)
    made, rows = denoiser(scenes), torch.arange(4)
    nothing = torch.zeros(4, dtype=torch.bool)
    optimizer = torch.optim.AdamW(made.parameters(), 1e-3)
    flows = []
    for _ in range(4):
        torch.manual_seed(1)
        losses = made.loss(rows, rows % 2, noise_levels(np.random.default_rng(0)), nothing)
        losses["loss"].backward()
        optimizer.step()
        flows.append(float(losses["flow"].detach()))
        still = [name for name, each in made.named_parameters() if each.grad is None]
        optimizer.zero_grad()
    clean = scenes.latents[rows].float()
    torch.manual_seed(1)
    target = torch.randn(clean.shape) - clean
    assert abs(flows[0] - float(target.pow(2).mean())) < 1e-3, "its output begins at 0"
    assert flows[-1] < flows[0]
    last = made.transformer.transformer_blocks[-1]
    unused = {id(each) for name, each in last.named_parameters() if "context" in name or "add_q" in name}
    assert not [name for name in still if id(made.get_parameter(name)) not in unused and "clips" not in name]


def test_the_shipped_weights_draw_what_is_asked_for():
    """A floor that broken weights miss, below the .97 measured over 100 captions."""
    rng = np.random.default_rng(9)
    scenes = [sample_held_out_scene(rng, 1) for _ in range(4)]
    config = DiffusionConfig(model=str(FOLDER), sampler="flow_euler", steps=12, guidance_scale=4.0)
    pictures = draw(Diffusion(config), [caption(scene) for scene in scenes])
    looks = [[thing.look for thing in seen.things] for seen in Judge.load().look(pictures)]
    found = [{(look.kind, look.color) for look in each} for each in looks]
    assert (
        sum(each == {(s.things[0].kind, s.things[0].color)} for each, s in zip(found, scenes, strict=True))
        >= 3
    )
