"""A small chain of stages without models: real enough to be joined, rejected, failed and published.

``FAKES`` are the classes, ``PLACED`` is what the engine is given. They have the scopes and weights of the
true chain. The caption and files in the folder ``$FAKE_SWITCHES`` steer what a stage does, so that a test can
change it between two commands.
"""

import hashlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from stages.base import Decision, Stage, StageConfig, Weights, kept, rejected, to_table
from stages.placed import first_turn
from stages.publisher import Publisher, PublisherConfig


def switched_on(name: str) -> bool:
    return (Path(os.environ.get("FAKE_SWITCHES", "/nonexistent")) / name).exists()


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class Fake(Stage[Any]):
    version: ClassVar[int] = 1
    task_keys: ClassVar[list[str]] = []
    schema: ClassVar[pa.Schema]
    Config: ClassVar[type[StageConfig]] = StageConfig

    def __init__(self, config: Any, tasks: Any, *, turn: int = 1) -> None:
        super().__init__(config, tasks, turn=turn)
        if "FAKE_SWITCHES" in os.environ:
            with (Path(os.environ["FAKE_SWITCHES"]) / "processes").open("a") as loaded:
                loaded.write(f"{type(self).__name__} {os.getpid()}\n")

    def __call__(self, rows: pa.Table) -> pa.Table:
        assert rows.num_rows <= self.config.batch
        if switched_on("small memory") and self.config.batch > 2:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return to_table(rows["id"].to_pylist(), [self.decide(row) for row in rows.to_pylist()], self.schema)

    def decide(self, row: dict) -> Decision:
        raise NotImplementedError


class Write(Fake):
    """Fails on "broken" captions until the switch "mended" is on; rejects empty ones."""

    reads: ClassVar[dict] = {"plan": ["caption", "task", "seed"]}
    task_keys: ClassVar[list[str]] = ["definition"]
    schema = pa.schema([pa.field("instruction", pa.string()), pa.field("tags", pa.list_(pa.int32()))])

    class Config(StageConfig):
        greeting: str = "please"

    def decide(self, row: dict) -> Decision:
        if not row["caption"].strip():
            return rejected("empty_caption")
        if "broken" in row["caption"] and not switched_on("mended"):
            raise ValueError(f"cannot parse row {row['seed'] % 1000}")
        return kept(instruction=f"{self.config.greeting} {row['task']} {row['caption'][:20]}", tags=[1, 2])


class Model(Weights):
    steps: int = 4


class Draw(Fake):
    """The expensive stage, with weights. On demand it is slow, waits at a row, hangs, or loses its worker."""

    reads: ClassVar[dict] = {"plan": ["seed"], "write": ["instruction"]}
    schema = pa.schema([pa.field("picture", pa.binary()), pa.field("threads", pa.int32())])

    class Config(StageConfig):
        diffusion: Model
        pause: float = 0

    def decide(self, row: dict) -> Decision:
        time.sleep(self.config.pause)
        if switched_on("cuda"):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if switched_on(f"poison {row['instruction'].split()[-1]}"):
            os.kill(os.getpid(), signal.SIGKILL)
        if switched_on(f"exit {row['instruction'].split()[-1]}"):
            raise SystemExit(0)
        if switched_on(f"hang {row['instruction'].split()[-1]}"):
            with (Path(os.environ["FAKE_SWITCHES"]) / "hanging").open("a") as hanging:
                hanging.write(f"{os.getpid()}\n")
            time.sleep(10_000)
        while switched_on(f"wait {row['instruction'].split()[-1]}"):
            time.sleep(0.01)
        if switched_on("die"):
            (Path(os.environ["FAKE_SWITCHES"]) / "die").unlink()
            os._exit(1)
        text = f"{row['seed']} {row['instruction']} {self.config.diffusion.steps}"
        return kept(
            picture=hashlib.blake2b(text.encode()).digest() * 30, threads=int(os.environ["OMP_NUM_THREADS"])
        )


class Limits(StageConfig):
    default: Mapping[str, float] = {}
    tasks: Mapping[str, Mapping[str, float]] = {}


class Sieve(Fake):
    """Rejects by threshold."""

    light: ClassVar[bool] = True
    reads: ClassVar[dict] = {"plan": ["task"], "draw": ["picture"]}
    schema = pa.schema([pa.field("choice", pa.int32())])
    Config = Limits

    def __init__(self, config: Any, tasks: Any, *, turn: int = 1) -> None:
        super().__init__(config, tasks, turn=turn)
        unknown = set(config.tasks) - set(tasks)
        if unknown:
            raise ValueError(f"sieve.tasks.{unknown.pop()}: not a task of this run")

    def decide(self, row: dict) -> Decision:
        limit = self.config.default.get("brightness", 0.2)
        return kept(choice=0) if row["picture"][0] / 255 >= limit else rejected("brightness_low")


class Publication(PublisherConfig):
    parts_per_shard: int = Field(2, ge=1)


class Publish(Fake, Publisher[Any]):
    light: ClassVar[bool] = True
    reads: ClassVar[dict] = {
        "plan": ["caption", "task"],
        "write": ["instruction", "tags"],
        "draw": ["picture"],
        "sieve": ["choice"],
        "run": ["models"],
    }
    schema = pa.schema(
        [
            pa.field("T", pa.string()),
            pa.field("Tar", pa.binary()),
            pa.field("tags", pa.list_(pa.int32())),
            pa.field("models", pa.string()),
        ]
    )
    schema_metadata: ClassVar[dict] = {b"huggingface": b"{}"}
    Config = Publication

    def decide(self, row: dict) -> Decision:
        return kept(T=row["instruction"], Tar=row["picture"], tags=row["tags"], models=row["models"])

    @staticmethod
    def describe(run: Path, summary: Mapping[str, Any]) -> str:
        return repr(summary)


FAKES: dict[str, type[Stage[Any]]] = {"write": Write, "draw": Draw, "sieve": Sieve, "shards": Publish}
PLACED = first_turn(FAKES)
