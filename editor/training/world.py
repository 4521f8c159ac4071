"""The processes of a training: one, or the workers of Ray Train."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import distributed, nn


@dataclass(frozen=True)
class World:
    """This process's place. All processes run the same steps; each takes its part of every batch."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()

    def shared(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over all processes."""
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    def parts(self, total: int, accumulate: int) -> Iterator[tuple[slice, bool]]:
        """This process's parts of a batch, and whether the gradients are averaged after it (the last one)."""
        pieces = self.size * accumulate
        bounds = [total * piece // pieces for piece in range(pieces + 1)]
        for turn in range(accumulate):
            piece = self.rank * accumulate + turn
            if bounds[piece] < bounds[piece + 1]:
                yield slice(bounds[piece], bounds[piece + 1]), turn == accumulate - 1

    def gradients(self, module: nn.Module, synchronised: bool) -> AbstractContextManager[object]:
        """The context of a forward and backward pass."""
        if isinstance(module, nn.parallel.DistributedDataParallel) and not synchronised:
            return module.no_sync()
        return nullcontext()
