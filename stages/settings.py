"""The settings that every stage has, and sections that name a model's weights."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator
from typing_extensions import Self

from stages.section import Section
from stages.shipped import resolve

Dtype = Literal["float32", "float16", "bfloat16"]
"""The precision in which a model computes."""


class Weights(Section):
    """A section that names a model's weights. Their identity is part of the fingerprint."""

    model: str = Field(description="a local folder, or a hub name")
    revision: str | None = Field(default=None, description="the hub revision; None for local folders")

    @property
    def from_hub(self) -> bool:
        """Whether ``model`` can be a hub name; otherwise it is always a path."""
        return True

    @property
    def path(self) -> Path | None:
        """The local path of the weights with ``~`` expanded, or None for a hub name.

        ``model`` is a path if it starts with ``.``, ``/`` or ``~``, if its first folder exists in the working
        folder (a cluster's workers use the same one), or if it belongs to editpairs (:mod:`stages.shipped`).
        """
        path = resolve(Path(self.model))
        here = self.model.startswith((".", "/", "~")) or (bool(path.parts) and os.path.exists(path.parts[0]))
        return path if here or path.is_absolute() or not self.from_hub else None

    @property
    def name(self) -> str:
        """The name given to ``from_pretrained``: the path, or the hub name."""
        return self.model if self.path is None else str(self.path)

    @property
    def source(self) -> dict[str, Any]:
        """Further arguments of ``from_pretrained``: the revision, and no hub access for a local path."""
        return {"revision": self.revision, "local_files_only": self.path is not None}


class Resources(Section):
    """The resources of one worker of a stage. Not part of the fingerprint."""

    identity: ClassVar[bool] = False

    workers: int = Field(default=1, ge=1, le=4096, description="number of workers that run at once")
    gpus: float = Field(
        default=0, ge=0, le=64, description="GPUs per worker, or a share of one; no CPUs are counted then"
    )
    cpus: float = Field(default=1, ge=0, le=1024, description="CPUs per worker")
    hang_seconds: float = Field(
        default=1800,
        gt=0,
        le=30 * 86_400,
        description="a worker that takes longer for one batch, including loading its models, is ended",
    )
    threads: int = Field(
        default=1, ge=1, le=1024, description="threads per worker; torch takes a power of two"
    )

    @model_validator(mode="after")
    def _shares_of_one(self) -> Self:
        """Check Ray's limits: it counts in ten-thousandths, and shares one GPU but never several."""
        for key, value in (("gpus", self.gpus), ("cpus", self.cpus)):
            if 0 < value < 1e-4:
                raise ValueError(f"{key} must be 0 or at least 0.0001, not {value:g}")
        if self.gpus > 1 and not self.gpus.is_integer():
            raise ValueError(f"gpus must be a whole number or less than 1, not {self.gpus:g}")
        return self


AUTO = 0
"""``batch: auto`` in memory: the engine replaces it by the size that fits before a stage sees it."""


def _batch(value: object) -> object:
    if value == "auto":
        return AUTO
    if value == AUTO:
        raise ValueError("must be at least 1, or auto")
    return value


Batch = Annotated[
    int,
    BeforeValidator(_batch),
    PlainSerializer(lambda batch: "auto" if batch == AUTO else batch, return_type=int | str),
]


class StageConfig(Section):
    """Settings that every stage has."""

    batch: Batch = Field(
        default=8,
        ge=AUTO,
        le=10_000,
        description="rows per call of the stage; auto: as many as fit into the GPU's memory",
    )
    resources: Resources = Resources()

    @property
    def shapes(self) -> int:
        """The number of shapes of pictures among which a row's seed chooses (``stages.seeds.shape_of``).

        The plan puts rows of one shape next to each other, so that their batches are full.
        """
        return 1

    @property
    def task_keys(self) -> Sequence[str]:
        """Keys of a task file that the stage uses because of these settings, besides ``Stage.task_keys``."""
        return ()

    @property
    def made_for(self) -> Mapping[str, str]:
        """Models of other stages that the settings were made for: manifest key -> revision or content hash.

        A run with other models, or without one of them, is refused.
        """
        return {}
