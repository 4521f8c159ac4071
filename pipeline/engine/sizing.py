"""``batch: auto``: the batch size that fits is found by halving, and remembered in the run's events."""

from pipeline.store import events
from pipeline.store.location import Location
from stages.base import AUTO, ConfigT, StageConfig

FIRST = 64
"""The first size that is tried on a GPU. Too large a batch costs one failed call per halving."""


def sized(config: ConfigT, fitted: int | None) -> ConfigT:
    """A section with a number in place of ``batch: auto``.

    Args:
        config: the section.
        fitted: the size that has fitted before, if it is known.

    Returns:
        Without a GPU the default size: memory of a CPU that runs out cannot be noticed in time.
    """
    if config.batch != AUTO:
        return config
    size = fitted or FIRST if config.resources.gpus else StageConfig().batch
    return config.model_copy(update={"batch": size})


def fitted_batch(path: Location, step: str) -> int | None:
    """The smallest batch that memory has allowed a step, by its events; None if every batch fit."""
    told = [event["smallest_batch"] for _, event in events.read(path) if _is_about(event, step)]
    return min(told, default=None)


def _is_about(event: dict[str, object], step: str) -> bool:
    return event.get("stage") == step and "smallest_batch" in event
