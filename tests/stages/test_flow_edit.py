"""Forced sources by flow matching: the same rule as for U-Nets, and equal to FlowEdit (Kulikov et al. 2024).

On tiny random transformers of FLUX.1 and Stable Diffusion 3.5 in float64.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.forced import ForcedSources
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.families.sd3 import SD3Network
from stages.models.diffusion.sampler import sample
from stages.models.diffusion.trajectory import Trajectory
from tests.stages.test_joint_attention import SIZE, SOFT, STEPS, peaky
from tests.stages.tiny_pipelines import POOLED, WIDTH, flux_transformer, sd3_transformer

T = 5
NOTICED = 1e-3
FAMILIES = {
    "flux": (lambda: FluxNetwork(peaky(flux_transformer(guidance=True))), WIDTH, WIDTH),
    "sd35": (lambda: SD3Network(peaky(sd3_transformer())), 3 * WIDTH, 2 * POOLED),
}
SCALES = (1.5, 4.0)
"""Guidance of the source and of its edits."""


class Flow(FlowMatchEulerDiscreteScheduler):
    """diffusers' scheduler, whose step is in the latents' own precision."""

    def step(self, predicted, t, latents, generator=None):
        at = self.index_for_timestep(t)
        span = float(self.sigmas[at + 1]) - float(self.sigmas[at])
        return SimpleNamespace(prev_sample=latents + span * predicted)


class FirstStep:
    """Keeps the latents after the first of the steps."""

    def __init__(self, start: int) -> None:
        self.start = start

    def before_sampling(self, states, size):
        pass

    def before_step(self, step):
        pass

    def after_step(self, step, latents):
        if step == self.start:
            self.latents = latents
        return latents


class Drawing:
    """Draws a forced source and its edits with a family's network."""

    def __init__(self, family: str) -> None:
        make, width, pooled = FAMILIES[family]
        self.guided = family != "flux"
        self.networks, self.attentions = {}, {}
        for hold in (False, True):
            self.networks[hold], self.attentions[hold] = make(), JointAttention(hold=hold)
            self.attentions[hold].install(self.networks[hold])
        generator = torch.Generator().manual_seed(1)
        self.states = torch.randn(4, T, width, generator=generator).double()
        self.pooled = torch.randn(4, pooled, generator=generator).double()
        self.clean = torch.randn(1, 4, *SIZE, generator=generator).double()
        self.scheduler = Flow(shift=1.7)
        self.trajectory = Trajectory(self.scheduler, self.clean, [3], STEPS)

    def call(self, latents, prompts, scales, control, hold=False):
        """Latents after all steps; prompts by number, the last one is the empty prompt."""
        cond, added, embedded = self.states[prompts], self.pooled[prompts], None
        if self.guided:
            added = torch.cat([self.pooled[-1:].expand_as(added), added])
        else:
            embedded = torch.tensor(scales)
        return sample(
            self.networks[hold],
            self.scheduler,
            latents,
            cond,
            self.states[-1] if self.guided else None,
            torch.tensor(scales),
            STEPS,
            control,
            added={"pooled": added},
            timestep_cond=embedded,
            start=control.start,
        )

    def edited(self, edits, prompts, scales=SCALES, start=0, hold=False):
        """Latents of [source, edits] at the end."""
        blocks = torch.ones(len(self.networks[hold].blocks), dtype=torch.bool)
        edits = [replace(edit, blocks=blocks) for edit in edits]
        tokens, options = 24, {"guided": self.guided, "mask_attention": False}
        device = torch.device("cpu")
        control = JointControl(edits, 1, STEPS, "qk", tokens, device, torch.float64, **options)
        forced = ForcedSources(control, self.trajectory, start)
        self.attentions[hold].control = control
        scales = (scales[0], *[scales[1]] * len(edits))
        return self.call(forced.initial_latents(), prompts, scales, forced, hold)

    def flow_edit(self, start=0):
        """The loop of the paper's algorithm 1 with one noise a step: z <- z + dt (v_edit - v_source)."""
        self.attentions[False].control, changed = None, self.clean
        for step in range(start, STEPS):
            source, first = self.trajectory.before(step), FirstStep(step)
            both = torch.cat([source, changed + source - self.clean])
            self.call(both, [0, 1], SCALES, first)
            moved = first.latents - both  # dt v
            changed = changed + (moved[1:] - moved[:1])
        return changed


@pytest.fixture(scope="module", params=FAMILIES)
def drawing(request):
    return Drawing(request.param)


def edit(source: int = 0, *, open_: bool = False, mask: torch.Tensor | None = None) -> EditRow:
    nothing = TokenMap(torch.zeros(0, 0), torch.zeros(0))
    gate = torch.full((STEPS,), open_)
    return EditRow(source, nothing, torch.zeros(STEPS, 0), gate, shared=True, mask=mask)


@pytest.mark.parametrize("start", [0, 2])
def test_it_is_flow_edit(drawing, start):
    latents = drawing.edited([edit()], [0, 1], start=start)
    assert (latents[1:] - drawing.flow_edit(start)).abs().max() < 1e-10
    assert (latents[1:] - drawing.clean).abs().max() > NOTICED
    controlled = drawing.edited([edit(open_=True)], [0, 1], start=start)
    assert (controlled[1:] - latents[1:]).abs().max() > NOTICED, "borrowed queries and keys make another edit"


@pytest.mark.parametrize("start", [0, 2])
def test_the_source_ends_as_its_picture_to_the_bit(drawing, start):
    latents = drawing.edited([edit(open_=True), edit(mask=SOFT)], [0, 1, 2], start=start)
    assert torch.equal(latents[:1], drawing.clean)


@pytest.mark.parametrize("open_", [False, True])
def test_an_edit_with_the_same_prompt_and_guidance_ends_as_the_picture(drawing, open_):
    latents = drawing.edited([edit(open_=open_)], [0, 0], scales=(3.0, 3.0))
    assert (latents[1:] - drawing.clean).abs().max() < 1e-10
    other = drawing.edited([edit(open_=open_)], [0, 0], scales=(3.0, 3.5))
    assert (other[1:] - drawing.clean).abs().max() > NOTICED


@pytest.mark.parametrize("hold", [False, True])
def test_where_the_mask_is_0_the_edit_is_the_picture_to_the_bit(drawing, hold):
    latents = drawing.edited([edit(open_=True, mask=SOFT), edit(mask=SOFT * 0)], [0, 1, 2], hold=hold)
    outside = torch.nn.functional.adaptive_max_pool2d(SOFT[None], SIZE)[0] == 0
    assert torch.equal(latents[1][:, outside], drawing.clean[0][:, outside])
    assert (latents[1][:, ~outside] - drawing.clean[0][:, ~outside]).abs().max() > NOTICED
    assert torch.equal(latents[2], drawing.clean[0])


def test_a_held_edit_is_another_one_inside(drawing):
    held, loose = (drawing.edited([edit(mask=SOFT)], [0, 1], hold=hold) for hold in (True, False))
    assert (held[1] - loose[1]).abs().max() > NOTICED


def test_a_later_turn_follows_the_picture_that_its_session_began_with(drawing):
    latents = drawing.edited([edit(), edit(1, open_=True)], [0, 1, 1])
    assert (latents[1] - drawing.clean[0]).abs().max() > NOTICED
    assert (latents[2] - latents[1]).abs().max() < 1e-10
