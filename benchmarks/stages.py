"""Each stage of a manifest in a plain loop: start-up time, rows per second, and the share of model time.

    python -m benchmarks.stages                                   # a part of the toybox, two minutes
    python -m benchmarks.stages manifests/sd15.yaml --rows 64     # needs its models

Model time is the time inside neural networks: the outermost calls of torch modules. The rest is decoding,
masks, tokens, PNGs and parquet. Ray is not used: one worker runs with the manifest's number of threads.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import pyarrow as pa
import torch
import transformers
from rich.console import Console
from rich.table import Table

from pipeline.engine.generate import generate
from pipeline.engine.progress import Progress
from pipeline.manifest.manifest import read_manifest
from stages import STAGES
from stages.placed import first_turn


class Clock:
    """Seconds of a stage: its start, its calls, and the models inside them."""

    def __init__(self) -> None:
        self.start = self.calls = self.models = 0.0
        self.rows = 0

    def timed(self, stage: Any) -> Any:
        """The stage with timed calls."""
        clock = self

        class Timed(stage):
            def __init__(self, *args: Any, **keys: Any) -> None:
                started = time.perf_counter()
                super().__init__(*args, **keys)
                clock.start += time.perf_counter() - started

            def __call__(self, rows: pa.Table) -> pa.Table:
                started = time.perf_counter()
                with clock.models_timed():
                    records = super().__call__(rows)
                clock.calls += time.perf_counter() - started
                clock.rows += rows.num_rows
                return records

            def stream(self, batches: Iterator[pa.Table]) -> Any:
                made = super().stream(batches)
                return None if made is None else clock.each(made)

        return Timed

    def each(self, made: Iterator[pa.Table]) -> Generator[pa.Table, None, None]:
        """The records of a stream, timed."""
        while True:
            started = time.perf_counter()
            records = next(made, None)
            self.calls += time.perf_counter() - started
            if records is None:
                return
            self.rows += records.num_rows
            yield records

    @contextmanager
    def models_timed(self) -> Iterator[None]:
        """Time the outermost calls of modules. ``Module.__call__`` is restored afterwards."""
        original, depth = torch.nn.Module.__call__, 0

        def call(module: torch.nn.Module, *args: Any, **keys: Any) -> Any:
            nonlocal depth
            depth += 1
            started = time.perf_counter()
            try:
                return original(module, *args, **keys)
            finally:
                depth -= 1
                if not depth:
                    _finish_device()
                    self.models += time.perf_counter() - started

        torch.nn.Module.__call__ = call
        try:
            yield
        finally:
            torch.nn.Module.__call__ = original


def _finish_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", type=Path, nargs="?", default=Path("manifests/toybox.yaml"))
    parser.add_argument("--rows", type=int, default=36)
    options = parser.parse_args()
    console = Console()
    chain = {name: stage for name, stage in STAGES.items() if not stage.needs_section}
    clocks = {name: Clock() for name in chain}
    stages = {name: clocks[name].timed(stage) for name, stage in chain.items()}
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"rows={options.rows}", f"rows_per_part={options.rows}", f"runs={folder}"]
        manifest = read_manifest(options.manifest, overrides, stages)
        started = time.perf_counter()
        generate(manifest, first_turn(stages), progress=Progress(console), engine="local")
        wall = time.perf_counter() - started
    table = Table("stage", "start-up s", "rows", "rows/s", "model time")
    for name, clock in clocks.items():
        rate = f"{clock.rows / clock.calls:.2f}" if clock.calls else ""
        share = f"{clock.models / clock.calls:.0%}" if clock.models else ""
        table.add_row(name, f"{clock.start:.1f}", str(clock.rows), rate, share)
    console.print(table)
    parts = list(clocks.values())
    calls, starts, models = (sum(getattr(c, part) for c in parts) for part in ("calls", "start", "models"))
    console.print(
        f"the chain: {wall:.1f} s, {wall / (models + starts):.2f} times its model time ({models:.1f} s) and "
        f"start-up ({starts:.1f} s); {calls - models:.1f} s within stages and "
        f"{wall - calls - starts:.1f} s between them are neither",
        highlight=False,
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    console.print(
        f"{options.manifest} on {device}, {os.cpu_count()} cores; torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}, transformers {transformers.__version__}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
