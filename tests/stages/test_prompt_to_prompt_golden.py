"""The published Prompt-to-Prompt controllers' results are reproduced to 1e-9 in float64.

``tests/golden`` holds a small random U-Net and the latents that the published code gave with it.
"""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from stages.diffusion.sampler import sample
from stages.edit.alignment import Prompt, refine_map, replace_map
from stages.edit.attention import install
from stages.edit.control import EditRow, PromptToPrompt

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "cases.json").read_text())


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


def edited_latents(unet, name: str, later: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours and the published latents; ``later`` shifts the ends of both gates (a negative control)."""
    case, golden = CASES[name], load_file(GOLDEN / f"{name}.safetensors")
    scheduler = DDIMScheduler.from_config(json.loads((GOLDEN / "scheduler.json").read_text()))
    layers = install(unet)
    edit = EditRow(
        0, token_map(case, golden["token_ids"]), case.get("cross", 0) + later, case.get("self", 0) + later
    )
    control = PromptToPrompt([edit], 1, case["steps"], 16**2, torch.device("cpu"), torch.float64)
    for layer in layers:
        layer.control = control
    latents = golden["latents_T"].double().expand(2, -1, -1, -1)
    guidance = torch.full((2,), case["guidance_scale"], dtype=torch.float64)
    cond, uncond = golden["cond"].double(), golden["uncond"].double()
    ours = sample(unet, scheduler, latents, cond, uncond, guidance, case["steps"], control)
    return ours, golden["latents_0"]


@pytest.mark.parametrize("name", ["none", "replace", "refine"])
def test_reproduces_the_published_latents(unet, name):
    ours, published = edited_latents(unet, name)
    assert (ours - published).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["replace", "refine"])
def test_a_gate_one_step_off_is_noticed(unet, name):
    ours, published = edited_latents(unet, name, later=-0.1)
    assert (ours[0] - published[0]).abs().max() < 1e-9, "the source row has no control"
    assert (ours[1] - published[1]).abs().max() > 1e-3
