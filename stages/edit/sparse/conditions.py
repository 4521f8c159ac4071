"""What a network is told besides the latents."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Conditions:
    """The conditions of a batch by row; the timestep is that of all rows."""

    timestep: torch.Tensor
    states: torch.Tensor
    timestep_cond: torch.Tensor | None
    added: Mapping[str, torch.Tensor] | None

    def of(self, rows: torch.Tensor | slice) -> "Conditions":
        """Those of some rows."""
        return Conditions(
            self.timestep,
            self.states[rows],
            None if self.timestep_cond is None else self.timestep_cond[rows],
            None if self.added is None else {name: value[rows] for name, value in self.added.items()},
        )
