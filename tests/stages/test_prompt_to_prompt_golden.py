"""The published Prompt-to-Prompt controllers' results are reproduced to 1e-9 in float64.

``tests/golden`` holds a small random U-Net and the latents that the published code gave with it on
another machine.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from stages.edit.prompt_to_prompt.alignment import Prompt, refine_map, replace_map
from stages.edit.prompt_to_prompt.attention import begin, install
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.gates import cross_gate, self_gate
from stages.edit.sparse.unet import SparseUNet
from stages.models.diffusion.sampler import sample
from tests.stages.sparse_emulation import compute_all_as_lists

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_TOLERANCE = 1e-9
CASES = json.loads((GOLDEN / "cases.json").read_text())


@dataclass
class Step:
    prev_sample: torch.Tensor


class RoundedDDIM(DDIMScheduler):
    """DDIM with correctly rounded float32 roots, as the golden values have them.

    diffusers takes the roots as ``x ** 0.5`` of float32 tensors, which on some CPUs is off by the
    last bit: enough to move these latents by 2e-6, whatever the attention does.
    """

    def step(self, model_output, timestep, sample, generator=None):
        previous = int(timestep) - self.config.num_train_timesteps // self.num_inference_steps
        alpha = self.alphas_cumprod[timestep]
        alpha_previous = self.alphas_cumprod[previous] if previous >= 0 else self.final_alpha_cumprod
        original = (sample - root(1 - alpha) * model_output) / root(alpha)
        return Step(root(alpha_previous) * original + root(1 - alpha_previous) * model_output)


def root(value: torch.Tensor) -> float:
    return float(np.sqrt(np.float32(value)))


@pytest.fixture(scope="module")
def unet():
    config = json.loads((GOLDEN / "config.json").read_text())
    model = UNet2DConditionModel.from_config(config)
    model.load_state_dict(load_file(GOLDEN / "unet.safetensors"))
    return model.double().eval()


def unpadded(ids: torch.Tensor) -> list[int]:
    end = ids.tolist().index(49407)
    return ids.tolist()[: end + 1]


def token_map(case: dict, ids: torch.Tensor):
    source, target = unpadded(ids[0]), unpadded(ids[1])
    if case["kind"] == "refine":
        return refine_map(source, target, 77)
    prompts = [
        Prompt(text, tokens, [[k] for k in range(1, len(tokens) - 1)])
        for text, tokens in zip(case["prompts"], (source, target), strict=True)
    ]
    return replace_map(*prompts, 77)


def run(unet, name: str, control) -> torch.Tensor:
    """Latents [2,4,32,32] of the source and the edit of a case."""
    case, golden = CASES[name], load_file(GOLDEN / f"{name}.safetensors")
    scheduler = RoundedDDIM.from_config(json.loads((GOLDEN / "scheduler.json").read_text()))
    latents = golden["latents_T"].double().expand(2, -1, -1, -1)
    guidance = torch.full((2,), case["guidance_scale"], dtype=torch.float64)
    cond, uncond = golden["cond"].double(), golden["uncond"].double()
    return sample(unet, scheduler, latents, cond, uncond, guidance, case["steps"], control)


def ours(unet, name: str, earlier: float = 0.0) -> torch.Tensor:
    """What the shipped code gives; ``earlier`` moves the ends of both gates (a negative control)."""
    layers, control = install(unet), control_of(name, earlier)
    begin(layers, control)
    return run(unet, name, control)


def control_of(name: str, earlier: float = 0.0, mask: torch.Tensor | None = None) -> PromptToPrompt:
    case, golden = CASES[name], load_file(GOLDEN / f"{name}.safetensors")
    ends = (case.get("cross", 0) - earlier, case.get("self", 0) - earlier)
    gates = cross_gate(case["steps"], 77, (0, ends[0])), self_gate(case["steps"], (0, ends[1]))
    edit = EditRow(0, token_map(case, golden["token_ids"]), *gates, mask=mask)
    return PromptToPrompt([edit], 1, case["steps"], 16**2, torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("name", [pytest.param("none", marks=pytest.mark.full), "replace", "refine"])
def test_is_exactly_what_the_published_controllers_give(unet, name):
    golden = load_file(GOLDEN / f"{name}.safetensors")["latents_0"]
    assert (ours(unet, name) - golden).abs().max() < GOLDEN_TOLERANCE


def test_lists_of_all_tokens_give_the_same(unet, monkeypatch):
    compute_all_as_lists(monkeypatch)
    copied, control = copy.deepcopy(unet), control_of("replace", mask=torch.ones(256, 256))
    sparse = SparseUNet(copied, "support", halo=0)
    sparse.begin(control, (32, 32))
    golden = load_file(GOLDEN / "replace.safetensors")["latents_0"]
    assert (run(sparse, "replace", control) - golden).abs().max() < GOLDEN_TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("name", ["replace", "refine"])
def test_a_gate_one_step_off_is_noticed(unet, name):
    golden = load_file(GOLDEN / f"{name}.safetensors")["latents_0"]
    latents = ours(unet, name, earlier=0.1)
    assert (latents[0] - golden[0]).abs().max() < GOLDEN_TOLERANCE, "the source row has no control"
    assert (latents[1] - golden[1]).abs().max() > 1e-3
