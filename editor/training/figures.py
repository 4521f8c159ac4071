"""Losses by noise level and task, the pace, and the time left."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

LEVELS = ("0-25 %", "25-50 %", "50-75 %", "75-100 %")
"""Noise levels: time step as a share of the schedule."""
_LATEST = 200
"""Steps whose mean time predicts the time left."""


class Figures:
    """Collects the losses of examples until they are written."""

    def __init__(self, tasks: Sequence[str], steps: int) -> None:
        self._tasks, self._steps = list(tasks), steps
        self._losses: list[float] = []
        self._levels: list[int] = []
        self._rows: list[int] = []
        self._seconds: list[float] = []

    def add(self, losses: torch.Tensor, times: torch.Tensor, rows: Sequence[int]) -> None:
        """Losses [n] of examples at times [n] in [0,1), of rows of the task table."""
        self._losses += losses.detach().float().cpu().tolist()
        self._levels += (times * len(LEVELS)).long().tolist()
        self._rows += rows

    def timed(self, seconds: float) -> None:
        """The duration of a step."""
        self._seconds = [*self._seconds[1 - _LATEST :], seconds]

    def line(self, step: int) -> dict[str, Any]:
        """The figures since the last line."""
        losses, levels, rows = np.array(self._losses), np.array(self._levels), np.array(self._rows)
        self._losses, self._levels, self._rows = [], [], []
        pace = float(np.mean(self._seconds))
        return {
            "step": step,
            "loss": float(losses.mean()),
            "noise": {
                name: float(losses[levels == k].mean())
                for k, name in enumerate(LEVELS)
                if (levels == k).any()
            },
            "tasks": {
                name: float(losses[rows == k].mean())
                for k, name in enumerate(self._tasks)
                if (rows == k).any()
            },
            "seconds_a_step": pace,
            "seconds_left": pace * (self._steps - step),
        }

    def text(self, line: dict[str, Any]) -> str:
        """A line for the terminal."""
        noise = " ".join(f"{value:.3f}" for value in line["noise"].values())
        tasks = " ".join(f"{name} {value:.3f}" for name, value in line["tasks"].items())
        return (
            f"{line['step']}/{self._steps}  loss {line['loss']:.4f}  by noise {noise}  {tasks}  "
            f"{line['seconds_a_step']:.2f} s a step, {line['seconds_left'] / 60:.0f} min left"
        )
