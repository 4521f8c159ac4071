"""The same training in two workers of Ray Train (make test-full)."""

import pytest
import torch
from safetensors.torch import load_file

from editor.training.start import train
from pipeline.errors import UserError
from pipeline.shown import terminal
from tests.editor.tiny_editor import manifest_for

pytestmark = pytest.mark.full


@pytest.fixture(scope="module", autouse=True)
def ray_ends():
    yield
    import ray

    ray.shutdown()


def test_two_workers_learn_what_one_process_learns(tmp_path):
    """The sums of a batch are in another order, so weights differ in the last bits."""
    alone = manifest_for(tmp_path, name="alone")
    train(alone, terminal())
    shared = manifest_for(tmp_path, name="shared", training={"workers": 2})
    folder = train(shared, terminal())
    first, second = (
        load_file(manifest.folder / "editor/unet/diffusion_pytorch_model.safetensors")
        for manifest in (alone, shared)
    )
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[key], second[key], atol=2e-4) for key in first)
    assert folder == shared.folder / "editor"
    assert (shared.folder / "log.jsonl").exists()


def test_a_worker_s_error_is_the_command_s_message(tmp_path):
    manifest = manifest_for(tmp_path, training={"workers": 2, "steps": 2})
    train(manifest, terminal())
    other = manifest_for(tmp_path, training={"workers": 2, "steps": 2, "learning_rate": 0.01})
    with pytest.raises(UserError, match=r"training\.learning_rate: 0\.001 -> 0\.01"):
        train(other, terminal())
