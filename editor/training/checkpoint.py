"""The state of a training in one safetensors file, replaced as a whole. A kill leaves the earlier one."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import UserError

FILE = "state.safetensors"


@dataclass
class State:
    """Everything that a step changes: weights, averaged weights and the optimizer's moments."""

    parameters: Sequence[nn.Parameter]
    average: EMAModel
    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name. Parameters are numbered in the order of ``parameters``."""
        found: dict[str, Tensor] = {}
        for number, (parameter, averaged) in enumerate(
            zip(self.parameters, self.average.shadow_params, strict=True)
        ):
            found[f"weight.{number}"], found[f"average.{number}"] = parameter.detach(), averaged
            for name, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer.{name}.{number}"] = value
        return found

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """Set every tensor."""
        for number, parameter in enumerate(self.parameters):
            parameter.data.copy_(tensors[f"weight.{number}"])
            self.average.shadow_params[number].copy_(tensors[f"average.{number}"])
            moments = {
                name.split(".")[1]: value.clone()
                for name, value in tensors.items()
                if name.startswith("optimizer.") and name.endswith(f".{number}")
            }
            device = parameter.device
            self.optimizer.state[parameter] = {
                name: value if name == "step" else value.to(device) for name, value in moments.items()
            }
        self.average.optimization_step = step


def save(folder: Path, state: State, step: int, about: dict[str, Any]) -> None:
    """Write the state after ``step`` steps; ``about`` are the settings that a resumed training must share."""
    target, under_way = folder / FILE, folder / f".{FILE}.tmp"
    metadata = {"step": str(step), "about": json.dumps(about)}
    save_file({name: tensor.contiguous() for name, tensor in state.tensors().items()}, under_way, metadata)
    with under_way.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(under_way, target)


def load(folder: Path, state: State, about: dict[str, Any]) -> int:
    """Load the state, if there is one.

    Returns:
        The number of steps done; 0 if there is no state.

    Raises:
        UserError: it belongs to another training, or it is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return 0
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            earlier, step = json.loads(metadata["about"]), int(metadata["step"])
            _check_same(folder, earlier, about)
            state.load({name: opened.get_tensor(name) for name in opened.keys()}, step)  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{file} is damaged ({' '.join(str(error).split())[:200]}): delete {folder} to begin anew"
        ) from error
    return step


def _check_same(folder: Path, earlier: dict[str, Any], about: dict[str, Any]) -> None:
    before, now = _flat(earlier), _flat(about)
    changes = [
        f"  {key}: {before.get(key)!r} -> {now.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if changes:
        raise UserError(
            f"{folder} holds a training with other settings:\n" + "\n".join(changes) + "\n"
            "Use another name (--set name=...), or undo the change. To go on with other pairs or settings, "
            f"name its editor as base: --set base.model={folder / 'editor'} --set name=..."
        )


def _flat(content: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat
