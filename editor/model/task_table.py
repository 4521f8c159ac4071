"""The table of learned task vectors v_i (Emu Edit, section 4.2)."""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

INITIAL_DEVIATION = 0.02
"""Standard deviation of new vectors. They are an extra token beside normalised ones: large ones change a new
editor's predictions, and learn slowly."""


class TaskTable(ModelMixin, ConfigMixin):
    """A vector per task.

    Args:
        names: names of the tasks.
        indices: their task indices (TI), in the same order.
        width: width of a vector; that of a token of the text encoder.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, names: Sequence[str], indices: Sequence[int], width: int) -> None:
        super().__init__()
        if not len(names) == len(set(names)) == len(indices) == len(set(indices)):
            raise ValueError("a task table needs a name and an index for each task, each only once")
        self.vectors = nn.Embedding(len(names), width)
        nn.init.normal_(self.vectors.weight, std=INITIAL_DEVIATION)

    @property
    def names(self) -> list[str]:
        return list(self.config.names)

    @property
    def indices(self) -> list[int]:
        """TI of each row."""
        return list(self.config.indices)

    def rows(self, indices: Sequence[int]) -> list[int]:
        """The rows of task indices (TI).

        Raises:
            ValueError: the table has no such task.
        """
        places = {index: row for row, index in enumerate(self.indices)}
        if unknown := sorted(set(indices) - set(places)):
            raise ValueError(f"no task has the index {unknown[0]}; {self.listed()}")
        return [places[index] for index in indices]

    def row(self, name: str) -> int:
        """The row of a task's name.

        Raises:
            ValueError: the table has no such task.
        """
        if name not in self.names:
            raise ValueError(f"there is no task {name!r}; {self.listed()}")
        return self.names.index(name)

    def listed(self) -> str:
        """The tasks of the table, for a message."""
        pairs = (f"{name} ({index})" for name, index in zip(self.names, self.indices, strict=True))
        return f"tasks of this editor: {', '.join(pairs)}"

    def forward(self, rows: Tensor) -> Tensor:
        """Vectors [n,width] of rows [n]."""
        return self.vectors(rows)

    def with_task(self, name: str, index: int, vector: Tensor) -> "TaskTable":
        """A table with one more task. The vectors of the other tasks are the same to the bit.

        Raises:
            ValueError: the name or the index is used already.
        """
        if name in self.names:
            raise ValueError(f"there is a task {name!r} already; {self.listed()}")
        if index in self.indices:
            raise ValueError(f"a task has the index {index} already; {self.listed()}")
        table = TaskTable([*self.names, name], [*self.indices, index], self.config.width)
        with torch.no_grad():
            table.vectors.weight.copy_(torch.cat([self.vectors.weight.detach(), vector.detach()[None]]))
        return table
