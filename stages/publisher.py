"""A stage that publishes: what it has besides those of every stage."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field
from upath import UPath

from stages.base import Stage, StageConfig


class PublisherConfig(StageConfig):
    """Settings of a stage that publishes."""

    parts_per_shard: int = Field(
        default=8, ge=1, le=100_000, description="parts whose kept rows make one file"
    )


PublisherConfigT = TypeVar("PublisherConfigT", bound=PublisherConfig)


class Publisher(Stage[PublisherConfigT]):
    """A stage that publishes rows and describes them in a card. No other stage's rows depend on it.

    One file holds the kept rows of ``config.parts_per_shard`` parts, without ``status`` and ``reason``.
    """

    @classmethod
    @abstractmethod
    def describe(cls, run: Path | UPath, summary: Mapping[str, Any]) -> str:
        """The dataset card in Markdown. The same files give the same text.

        Args:
            run: the run folder, with a folder of files for every step of the stage.
            summary: ``name``, ``seed``, ``planned``, ``published``, ``models`` (as in ``run``, but
                parsed), ``funnel`` (given, kept, rejected, failed, pending by stage), ``rejected``
                (counts by stage and reason), ``files`` (by folder: ``name``, ``rows``, ``digest``), and
                ``audit`` if the run was audited (:func:`stages.shards.card.audit_section`).
        """
