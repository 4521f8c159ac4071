"""Training: resumed to the bit, the same in parts, refusals, and what a step learns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from editor.config import Dropout, TrainingConfig, parse_editor_manifest, read_editor_manifest
from editor.data.latents import Batch
from editor.model.loading import load_editor
from editor.training import checkpoint
from editor.training.objective import Objective, draw
from editor.training.trainer import Trainer, rate
from editor.training.world import World
from pipeline.errors import StageError, UserError
from pipeline.shown import terminal
from stages.base import Weights
from tests.editor.tiny_editor import manifest_for

ROOT = Path(__file__).parents[2]


def trainer(manifest) -> Trainer:
    return Trainer(manifest, manifest.folder, terminal(), World())


class Killed(BaseException):
    pass


def killed_at(step: int, manifest) -> None:
    """Train until the process would die within a step."""
    training = trainer(manifest)
    own = training._one_step

    def one_step(module):
        if training.step == step:
            raise Killed
        own(module)

    training._one_step = one_step
    with pytest.raises(Killed):
        training.run()


@pytest.mark.parametrize("options", [{}, {"text_encoder": True, "new_words": True, "conv_in_factor": 8.0}])
def test_a_training_that_was_killed_goes_on_to_the_same_bytes(tmp_path, options):
    whole = manifest_for(tmp_path, training=options)
    trainer(whole).run()
    parts = whole.model_copy(update={"name": "parts"})
    killed_at(4, parts)  # after the checkpoint of step 3
    resumed = trainer(parts)
    assert resumed.step == 3
    resumed.run()
    for name in ("state.safetensors", "editor/unet/diffusion_pytorch_model.safetensors"):
        first, second = (load_file(manifest.folder / name) for manifest in (whole, parts))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name


def test_a_finished_training_has_an_editor_samples_and_losses_by_noise_and_task(tmp_path):
    manifest = manifest_for(tmp_path)
    trainer(manifest).run()
    editor = load_editor(Weights(model=str(manifest.folder / "editor")))
    assert editor.table.names[:2] == ["local", "remove"]
    state = load_file(manifest.folder / "state.safetensors")
    averaged = [state[f"average.{k}"] for k in range(sum(name.startswith("average.") for name in state))]
    trained = [*editor.unet.parameters(), *editor.table.parameters()]
    assert all(torch.equal(found, wanted) for found, wanted in zip(trained, averaged, strict=True))
    assert (manifest.folder / "samples/0000006.png").read_bytes()[:4] == b"\x89PNG"
    line = json.loads((manifest.folder / "log.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 6
    assert set(line["tasks"]) <= {"remove", "add", "background", "detect"}
    assert line["noise"]
    trainer(manifest).run()  # nothing is left to do


def test_a_resumed_training_refuses_other_settings_and_other_pairs(tmp_path):
    manifest = manifest_for(tmp_path, training={"steps": 2})
    trainer(manifest).run()
    other = manifest_for(tmp_path, training={"steps": 2, "learning_rate": 0.01})
    with pytest.raises(
        UserError, match=r"training\.learning_rate: 0\.001 -> 0\.01\n.*name its\neditor|editor as base"
    ):
        trainer(other)
    with pytest.raises(UserError, match="pairs: "):
        trainer(manifest_for(tmp_path, training={"steps": 2}, data={"inverse": False}))


def test_how_often_is_logged_may_change_between_two_starts(tmp_path):
    manifest = manifest_for(tmp_path, training={"steps": 2})
    trainer(manifest).run()
    trainer(manifest.model_copy(update={"watch": manifest.watch.model_copy(update={"log_every": 1})}))


def test_a_damaged_checkpoint_is_one_message(tmp_path):
    manifest = manifest_for(tmp_path, training={"steps": 2})
    trainer(manifest).run()
    file = manifest.folder / checkpoint.FILE
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match="is damaged"):
        trainer(manifest)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    manifest = manifest_for(tmp_path)
    killed_at(4, manifest)
    kept = (manifest.folder / checkpoint.FILE).read_bytes()
    resumed = trainer(manifest)
    with torch.no_grad():
        resumed.network.unet.conv_in.weight.fill_(float("nan"))
    with pytest.raises(StageError, match=r"step 4: the loss is not finite.*state\.safetensors"):
        resumed.run()
    assert (manifest.folder / checkpoint.FILE).read_bytes() == kept


def test_accumulated_parts_give_the_gradients_of_the_whole_batch(tmp_path):
    gradients = []
    for accumulate in (1, 3):
        manifest = manifest_for(
            tmp_path, training={"accumulate": accumulate, "batch": 7}, name=f"a{accumulate}"
        )
        training = trainer(manifest)
        training.optimizer.step = lambda: None
        training.optimizer.zero_grad = lambda set_to_none: None
        training._one_step(training.objective)
        gradients.append([p.grad.clone() for p in training.parameters if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_workers_and_accumulation_divide_a_batch_without_gap_or_overlap():
    for total, size, accumulate in ((7, 1, 3), (512, 8, 4), (5, 3, 2)):
        places = []
        for rank in range(size):
            for part, _ in World(rank, size).parts(total, accumulate):
                places += range(part.start, part.stop)
        assert sorted(places) == list(range(total))


def test_the_draws_of_an_example_do_not_depend_on_how_the_batch_is_divided():
    def drawn(part):
        return draw(3, 5, 8, part, (4, 2, 2), 1000, 1.5, Dropout())

    whole, first, second = drawn(slice(0, 8)), drawn(slice(0, 3)), drawn(slice(3, 8))
    assert torch.equal(whole.noise, torch.cat([first.noise, second.noise]))
    assert torch.equal(whole.timesteps, torch.cat([first.timesteps, second.timesteps]))
    assert np.array_equal(whole.no_text, np.concatenate([first.no_text, second.no_text]))


def test_conditions_are_dropped_as_often_as_asked():
    many = [draw(0, step, 100, slice(0, 100), (1, 1, 1), 1000, 1.0, Dropout()) for step in range(60)]
    text, image = (np.concatenate([getattr(d, name) for d in many]) for name in ("no_text", "no_image"))
    for share in ((text & ~image).mean(), (image & ~text).mean(), (text & image).mean()):
        assert abs(share - 0.05) < 0.012


def test_the_noisy_exponent_moves_time_steps_to_the_noisy_end():
    def noisier(exponent):
        part = slice(0, 400)
        times = draw(0, 0, 400, part, (1, 1, 1), 1000, exponent, Dropout()).timesteps
        return float((times >= 500).float().mean())

    assert abs(noisier(1.0) - 0.5) < 0.01
    assert abs(noisier(1.5) - 0.5 ** (1 / 1.5)) < 0.01


@pytest.mark.parametrize("predicts_v", [False, True])
def test_the_loss_is_the_squared_error_of_noise_or_of_v(tmp_path, predicts_v):
    network = trainer(manifest_for(tmp_path)).network
    network.scheduler.register_to_config(prediction_type="v_prediction" if predicts_v else "epsilon")
    objective = Objective(network)
    random = torch.Generator().manual_seed(0)
    before, after, noise = (torch.randn(2, 4, 8, 8, generator=random) for _ in range(3))
    times = torch.tensor([10, 900])
    draws = draw(0, 0, 2, slice(0, 2), (4, 8, 8), 1000, 1.0, Dropout(text=0, image=0, both=0))
    draws = type(draws)(times, noise, draws.no_text, draws.no_image)
    scheduler, scaled = network.scheduler, after * network.vae.config.scaling_factor
    noisy = scheduler.add_noise(scaled, noise, times)
    target = scheduler.get_velocity(scaled, noise, times) if predicts_v else noise
    states = network.conditions(["a", "b"], network.vectors([0, 1])).states
    with torch.no_grad():
        predicted = network.unet(torch.cat([noisy, before], 1), times, states).sample
        losses = objective(Batch(before, after, ["a", "b"], [0, 1]), draws)
    assert torch.allclose(losses, (predicted - target).pow(2).mean((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("embedding", [True, False])
def test_without_task_embedding_the_vectors_are_zero_in_training_and_in_the_editor(tmp_path, embedding):
    manifest = manifest_for(tmp_path, training={"task_embedding": embedding, "steps": 2})
    torch.nn.init.normal_((training := trainer(manifest)).network.unet.task_projection.weight)
    training.run()
    for table in (training.network.table, load_editor(Weights(model=str(manifest.folder / "editor"))).table):
        assert bool((table.vectors.weight == 0).all()) != embedding


def test_the_learning_rate_warms_up_stays_and_decays():
    training = TrainingConfig(steps=100, warmup=10, plateau=0.5, floor=0.1)
    assert rate(training, 0) == 0.1
    assert rate(training, 10) == rate(training, 54) == 1
    assert 0.1 < rate(training, 90) < 0.3
    assert rate(training, 100) == pytest.approx(0.1)


def test_the_shipped_manifests_of_trainings_are_whole():
    for file in sorted((ROOT / "manifests").glob("editor-*.yaml")):
        if "training:" in file.read_text():
            manifest = read_editor_manifest(file)
            assert manifest.name == file.stem
            assert set(manifest.data.tasks or ()) <= set(manifest.tasks)


def test_a_wrong_key_is_named_with_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown key 'training\.step'; did you mean 'training\.steps'"):
        parse_editor_manifest(
            {"name": "a", "base": {"model": "m"}, "data": {"pairs": ["p"]}, "training": {"step": 1}}, "m.yaml"
        )
    with pytest.raises(UserError, match=r"data\.tasks\.recolour: there is no such task"):
        _ = parse_editor_manifest(
            {"name": "a", "base": {"model": "m"}, "data": {"pairs": ["p"], "tasks": ["recolour"]}}, "m.yaml"
        ).tasks
