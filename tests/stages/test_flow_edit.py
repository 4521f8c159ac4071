"""Forced sources by every family of transformers: the same rule as for U-Nets.

By flow matching it is FlowEdit (Kulikov et al. 2024). On tiny random transformers in float64.
"""

import pytest
import torch

from tests.stages.forced_families import FLOW, KINDS, Drawing, edit
from tests.stages.test_joint_attention import SIZE, SOFT

NOTICED = 1e-3


@pytest.fixture(scope="module", params=KINDS)
def drawing(request):
    return Drawing(request.param)


@pytest.fixture(scope="module", params=FLOW)
def by_flow(request):
    return Drawing(request.param)


@pytest.mark.parametrize("start", [0, 2])
def test_it_is_flow_edit(by_flow, start):
    latents = by_flow.edited([edit()], [0, 1], start=start)
    assert (latents[1:] - by_flow.flow_edit(start)).abs().max() < 1e-10
    assert (latents[1:] - by_flow.clean).abs().max() > NOTICED
    controlled = by_flow.edited([edit(open_=True)], [0, 1], start=start)
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
