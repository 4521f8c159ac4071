"""The training loop every recipe shares: it stops and goes on without a trace."""

import contextlib
from itertools import pairwise

import pytest
import torch

from toybox.recipes import training
from toybox.recipes.training import Schedule, Training

SCHEDULE = Schedule(steps=12, learning_rate=0.1, warmup=3, plateau=0.2, average=0.9)


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "BUILD", tmp_path)


def train(name: str, stop_after: int | None = None, first: int = 0) -> Training:
    torch.manual_seed(0)
    made = Training(name, torch.nn.Linear(4, 1), SCHEDULE, lambda: {}, first=first)
    target = torch.arange(4.0)

    def loss_of_step(step, rng):
        if step == stop_after:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.standard_normal((16, 4))).float()
        noise = 0.01 * torch.randn(16)
        return {"loss": (made.module(x)[:, 0] - x @ target + noise).pow(2).mean()}

    with contextlib.suppress(KeyboardInterrupt):
        made.run(loss_of_step, checkpoint_seconds=-1)
    return made


def weights(made: Training) -> list[torch.Tensor]:
    return [p.detach().clone() for p in (*made.module.parameters(), *made.averaged)]


def test_a_stopped_training_goes_on_to_the_same_weights():
    whole = train("whole")
    train("stopped", stop_after=7)
    resumed = train("stopped")
    assert resumed.step == 12
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_a_finished_training_does_not_train_again():
    train("done")
    again = train("done", stop_after=0)
    assert again.step == 12


def test_going_on_from_shipped_weights_trains_the_steps_that_are_left_and_warms_up_again():
    seen = []
    made = train("later", first=9)
    assert made.step == 12
    for step in (9, 10, 11):
        seen.append(SCHEDULE.factor(step, first=9) / SCHEDULE.factor(step, first=-100))
    assert seen == pytest.approx([1 / 3, 2 / 3, 1])


def test_the_schedule_warms_up_holds_and_falls_to_its_floor():
    factors = [Schedule(steps=1000, learning_rate=1, plateau=0.5).factor(step) for step in range(1001)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[100:501] == pytest.approx([1] * 401)
    assert all(a >= b for a, b in pairwise(factors[500:]))
    assert factors[1000] == pytest.approx(0.01)


def test_averaged_weights_are_put_in_place_and_taken_out_again():
    made = train("averaged")
    before = [p.detach().clone() for p in made.module.parameters()]
    with made.averaged_weights():
        inside = [p.detach().clone() for p in made.module.parameters()]
        assert not made.module.training
    assert all(torch.equal(a, p) for a, p in zip(before, made.module.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, inside, strict=True))
