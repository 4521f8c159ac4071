"""Common to all recipes: a resumable training loop with schedule, log and progress.

A recipe provides its modules and a function that computes the loss of one step. The state (step, modules,
optimizer, averaged weights, random generators) is written to ``toybox/build/<name>/`` every few minutes, so a
killed training continues from there. Checkpoints are too large to commit. A later training can continue from
the shipped weights (:func:`first_step`).
"""

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from stages.models.device import default_device

Model = TypeVar("Model", bound=torch.nn.Module)

BUILD = Path(__file__).parents[1] / "build"
WEIGHTS = Path(__file__).parents[1] / "weights"
DEVICE = default_device()


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps and learning rate of a training: linear warm-up, plateau, cosine decay to ``floor``."""

    steps: int
    learning_rate: float
    warmup: int = 100
    plateau: float = 0.0
    floor: float = 0.01
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    average: float = 0.0
    """Decay of the averaged weights (EMA); 0 keeps the last weights."""

    def factor(self, step: int, first: int = 0) -> float:
        """The learning rate at ``step`` as a fraction of ``learning_rate``. Warm-up begins at ``first``."""
        progress = max(0.0, step / self.steps - self.plateau) / (1 - self.plateau)
        cosine = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
        return min(1.0, (step - first + 1) / self.warmup) * cosine


def first_step() -> int:
    """``--from-step N`` on a recipe's command line: continue from the shipped weights, which took N steps.

    The default 0 trains from nothing.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--from-step", type=int, default=0, metavar="N", help=first_step.__doc__)
    return parser.parse_args().from_step


class Training:
    """Runs ``loss_of_step(step, rng) -> {"loss": tensor, ...}`` over a schedule.

    Args:
        name: folder below ``toybox/build`` for checkpoint and log.
        module: holds every trained parameter.
        schedule: steps and learning rate.
        evaluate: called every ``evaluate_every`` steps and at the end, with the averaged weights in place;
            returns figures for the log.
        first: without a checkpoint, the step that the weights in ``module`` belong to.
    """

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        schedule: Schedule,
        evaluate: Callable[[], dict[str, float]],
        evaluate_every: int = 500,
        first: int = 0,
    ) -> None:
        self.name, self.module, self.schedule = name, module, schedule
        self.evaluate, self.evaluate_every = evaluate, evaluate_every
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": schedule.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, schedule.learning_rate, betas=schedule.betas)
        self.averaged = [p.detach().clone() for p in self.parameters]
        self.step, self.seconds = first, 0.0
        self._began = self._timed_from = first
        self.folder = BUILD / name
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        loss_of_step: Callable[[int, np.random.Generator], dict[str, torch.Tensor]],
        checkpoint_seconds: float = 240,
    ) -> None:
        """Train to the end of the schedule. If there is a checkpoint, continue from it."""
        self._resume()
        rate = self.schedule.learning_rate
        started = saved = time.monotonic()
        window: list[dict[str, float]] = []
        self.module.train()
        while self.step < self.schedule.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = rate * self.schedule.factor(self.step, self._began)
            torch.manual_seed(self.step)
            losses = loss_of_step(self.step, np.random.default_rng([1, self.step]))
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            self._average()
            window.append({key: float(value.detach()) for key, value in losses.items()})
            now = time.monotonic()
            if self.step % 100 == 0:
                pace = (now - started) / (self.step - self._timed_from)
                self._log(_means(window), pace)
                window = []
            if self.step % self.evaluate_every == 0 and self.step < self.schedule.steps:
                self._log(self._evaluated(), None)
            if now - saved > checkpoint_seconds:
                self.seconds += now - started
                started = saved = now
                self._timed_from = self.step
                self._save()
        self.seconds += time.monotonic() - started
        self._save()
        with self.averaged_weights():
            self._log(self.evaluate(), None)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Use the averaged weights inside the block, in evaluation mode."""
        self._swap()
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._swap()
            self.module.train()

    def _evaluated(self) -> dict[str, float]:
        with self.averaged_weights():
            return self.evaluate()

    def _average(self) -> None:
        decay = min(self.schedule.average, (self.step + 1) / (self.step + 20))
        torch._foreach_lerp_(self.averaged, [p.data for p in self.parameters], 1 - decay)

    def _swap(self) -> None:
        for parameter, averaged in zip(self.parameters, self.averaged, strict=True):
            parameter.data, averaged.data = averaged.data, parameter.data

    def _save(self) -> None:
        state = {
            "step": self.step,
            "began": self._began,
            "seconds": self.seconds,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged,
        }
        torch.save(state, self.folder / "checkpoint.tmp")
        os.replace(self.folder / "checkpoint.tmp", self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, weights_only=True, map_location=DEVICE)
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averaged = state["averaged"]
            self.step, self._began, self.seconds = state["step"], state["began"], state["seconds"]
            print(f"{self.name}: continuing at step {self.step}", flush=True)
        self._timed_from = self.step

    def _log(self, figures: dict[str, float], seconds_a_step: float | None) -> None:
        text = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        left = ""
        if seconds_a_step:
            remaining = (self.schedule.steps - self.step) * seconds_a_step / 60
            left = f"  {seconds_a_step:.2f} s/step  {remaining:.0f} min left"
        print(f"{self.name} {self.step}/{self.schedule.steps}  {text}{left}", flush=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, **figures}) + "\n")


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    """Each loss's mean over the steps that reported it."""
    names = {name: None for losses in window for name in losses}
    return {name: float(np.mean([losses[name] for losses in window if name in losses])) for name in names}


def autocast() -> torch.autocast:
    """Mixed precision in bfloat16 where the device supports it. Emulated bfloat16 is 20 times slower."""
    native = DEVICE.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=native)


def half(model: Model) -> Model:
    """A copy of a model in half precision, for saving."""
    return copy.deepcopy(model).half()
