"""The engine without models: planning, running parts through a stage, and reading status.

    python -m benchmarks.engine                                  # about five minutes, 2 GB of disk
    python -m benchmarks.engine --captions 1000000 --parts 2000

The plan is one parquet file. Its peak memory is the peak of the whole process. Each part holds one row, so
the benchmark measures the engine's own work: reading, joining, committing to disk.
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipeline.engine.generate import generate
from pipeline.engine.ledger import count_run
from pipeline.engine.progress import Progress
from pipeline.engine.state import RunState
from pipeline.inputs.planning import ensure_plan
from pipeline.manifest.manifest import Manifest, read_manifest
from pipeline.store.folder import RunFolder
from stages.base import Stage, StageConfig, kept, to_table
from stages.placed import first_turn

PROMPTS = Path(__file__).parents[1] / "prompts"
ROWS_A_PART = 256
ROW_GROUP = 1_000_000


class Echo(Stage[StageConfig]):
    """A stage that keeps every row and changes nothing."""

    version: ClassVar[int] = 1
    reads: ClassVar[dict[str, list[str]]] = {"plan": ["caption"]}
    task_keys: ClassVar[list[str]] = []
    schema: ClassVar[pa.Schema] = pa.schema([pa.field("length", pa.int32())])
    Config: ClassVar[type[StageConfig]] = StageConfig
    light: ClassVar[bool] = True

    def __call__(self, rows: pa.Table) -> pa.Table:
        decisions = [kept(length=len(caption)) for caption in rows["caption"].to_pylist()]
        return to_table(rows["id"].to_pylist(), decisions, self.schema)


def write_captions(path: Path, count: int) -> None:
    """Write distinct captions of about seventy characters."""
    words = np.array([f"word{i}" for i in range(1000)])
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, pa.schema([pa.field("caption", pa.string())])) as writer:
        for first in track(range(0, count, ROW_GROUP), "writing captions"):
            rows = range(first, min(first + ROW_GROUP, count))
            chosen = words[rng.integers(0, len(words), (len(rows), 4))]
            captions = [
                f"a {a} {b} beside a {c} {d} in picture {i} of all"
                for i, (a, b, c, d) in zip(rows, chosen, strict=True)
            ]
            writer.write_table(pa.table({"caption": captions}))


def manifest_of(folder: Path, name: str, captions: Path, rows_per_part: int, stages: Any) -> Manifest:
    content = {
        "name": name,
        "runs": str(folder),
        "captions": {"file": str(captions)},
        "rows_per_part": rows_per_part,
        "tasks": {"mixture": {"local": 2, "remove": 1, "global": 1}, "prompts": str(PROMPTS)},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_manifest(path, [], stages)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--captions", type=int, default=10_000_000, help="how many the plan is of")
    parser.add_argument("--parts", type=int, default=39_000, help="how many parts go through a stage")
    options = parser.parse_args()
    console = Console()
    table = Table("what", "figure")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        captions = folder / "captions.parquet"

        write_captions(captions, options.captions)
        planned = manifest_of(folder, "plan", captions, ROWS_A_PART, {})
        before = _peak_mb()
        seconds, plan = timed(lambda: ensure_plan(RunFolder(planned.folder), planned))
        table.add_row(f"plan of {plan.rows:,} captions in {plan.parts:,} parts", f"{seconds:.1f} s")
        table.add_row("  peak memory, of it before", f"{_peak_mb():.0f} MB, {before:.0f} MB")

        write_captions(captions, options.parts)
        stages = {"echo": Echo}
        run = manifest_of(folder, "parts", captions, 1, stages)
        seconds, state = timed(lambda: generate(run, first_turn(stages), progress=Progress(console)))
        table.add_row("parts through a stage", f"{options.parts / seconds:.0f} a second")
        fresh = RunState(state.folder, state.plan, list(state.steps.values()))
        seconds, counts = timed(lambda: count_run(fresh))
        assert counts[0].kept.total() == options.parts
        table.add_row(f"footers of {options.parts:,} parts, counted", f"{seconds:.1f} s")
    console.print(table)
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"pyarrow {pa.__version__}",
        highlight=False,
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
