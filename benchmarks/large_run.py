"""A synthetic finished run with 39 000 parts (ten million captions), and the cost of commands that read it.

    python -m benchmarks.large_run                  # about a quarter of an hour, 6 GB of small files
    python -m benchmarks.large_run --parts 400

The chain is the toybox's. The files are written by the pipeline's own functions, one shard per part. Only the
parts that ``report`` draws hold all their rows, with synthetic values. Other parts hold one row without
columns, because only their footers are read.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.engine import ROWS_A_PART, write_captions
from pipeline.engine.state import RunState
from pipeline.inputs.planning import ensure_plan
from pipeline.manifest.fingerprint import fingerprint, identities_of
from pipeline.manifest.lockfile import write_lock
from pipeline.manifest.manifest import read_manifest, tasks_of
from pipeline.manifest.steps import Step, build_steps
from pipeline.store import events
from pipeline.store.counts import Counts
from pipeline.store.folder import RunFolder
from pipeline.store.parts import footer_content
from pipeline.store.plan import read_part
from pipeline.store.sealed_writer import SealedWriter
from pipeline.views.outcomes import sample_parts
from stages import STAGES
from stages.base import Decision, output_schema, to_table
from stages.pictures.png import encode_png
from stages.score.metrics import MEASURED
from stages.sessions.turns import unrolled

ROOT = Path(__file__).parents[1]
REASONS = {
    "instruct": ["answer_not_json", "caption_unchanged", "object_missing"],
    "mask": ["nothing_found", "area_low", "area_high"],
    "filter": ["clip_direction_low", "clip_text_output_low", "clip_image_high", "present_low", "absent_high"],
}
ROWS_A_BATCH = 8
LOST = 0.08
"""Share of rows that a rejecting stage rejects. One row in a thousand fails in ``source``."""


def build(folder: Path, parts: int) -> RunFolder:
    """Write the run's plan, lock file, parts, shards and events."""
    captions = folder / "captions.parquet"
    write_captions(captions, parts * ROWS_A_PART)
    settings = {
        "name": "large", "runs": folder, "captions.file": captions, "rows": "null",
        "rows_per_part": ROWS_A_PART, "shards.parts_per_shard": 1,
    }  # fmt: skip
    overrides = [f"{key}={value}" for key, value in settings.items()]
    manifest = read_manifest(ROOT / "manifests/toybox.yaml", overrides, STAGES)
    stages, tasks = unrolled(1), tasks_of(manifest)
    configs = manifest.configs(stages)
    identities = identities_of(stages, configs, tasks)
    steps = build_steps(stages, configs, {name: fingerprint(identities[name]) for name in stages})
    run = RunFolder(manifest.folder)
    plan = ensure_plan(run, manifest)
    write_lock(run.lock, manifest, tasks, steps, identities, [])
    shown = set(sample_parts(RunState(run, plan, steps), 0, seed=0))
    wide = next(place for place, step in enumerate(steps) if step.wide)
    slices = [range(first, min(first + 200, parts)) for first in range(0, parts, 200)]
    with ProcessPoolExecutor(initializer=_careless) as pool:

        def write(some: Sequence[Step], everything: dict[str, str]) -> None:
            fresh, names = RunState(run, plan, steps), [step.name for step in some]
            jobs = [
                pool.submit(_write_parts, fresh, part, shown.intersection(part), names, everything)
                for part in slices
            ]
            for job in track(jobs, f"writing {names[0]} to {names[-1]}"):
                job.result()

        write(steps[:wide], {})
        state = RunState(run, plan, steps)
        state.scan()
        write(steps[wide:], state.inputs(steps[wide], []))
    with run.events.open("wb") as file:
        for step in steps:
            for part in range(parts):
                took = {"seconds": 90.5, "wall": 45.2, "cpu_seconds": 88.1, "gpu_seconds": 0.0}
                event = {"stage": step.name, "unit": part, "rows": ROWS_A_PART, **took}
                file.write(events.sealed_line(event))
    return run


def _careless() -> None:
    """Skip flushing to disk: a benchmark's files need not survive a power cut."""
    os.fsync = lambda fd: None


def _write_parts(
    state: RunState, parts: Sequence[int], shown: set[int], names: Sequence[str], everything: dict[str, str]
) -> None:
    """Write the files of some steps for some parts.

    ``everything`` holds the inputs of a step that reads all parts.
    """
    for part in parts:
        rows = read_part(state.folder.plan, part, ["id", "task"]).to_pylist()
        given = [(row["id"], row["task"]) for row in rows]
        for step in state.steps.values():
            rng = np.random.default_rng([part, *step.name.encode()])
            decided = list(_decided(step, given, rng))
            if step.name in names:
                inputs = everything if step.wide else state.inputs(step, [part])
                whole = part in shown and not step.publishes
                _write_part(state, step, part, given, decided, inputs, whole, rng)
            given = [row for row, decision in zip(given, decided, strict=True) if decision.status == "kept"]


def _write_part(
    state: RunState,
    step: Step,
    part: int,
    given: Sequence[tuple[str, str]],
    decided: Sequence[Decision],
    inputs: Mapping[str, str],
    whole: bool,
    rng: np.random.Generator,
) -> None:
    counts: Counts = Counter((task, d.status, d.reason) for (_, task), d in zip(given, decided, strict=True))
    schema: pa.Schema = STAGES[step.stage].schema if whole else pa.schema([])
    ids = [row_id for row_id, _ in given][: None if whole else 1]
    with SealedWriter(state.path(step, part), output_schema(schema)) as writer:
        for first in range(0, len(ids), ROWS_A_BATCH):
            batch = slice(first, first + ROWS_A_BATCH)
            filled = [_filled(step.stage, decision, rng) for decision in decided[: len(ids)][batch]]
            writer.write(to_table(ids[batch], filled, schema))
        writer.commit(state.place(step, part), footer_content(step.fingerprint, inputs, counts))


def _decided(step: Step, given: Sequence[tuple[str, str]], rng: np.random.Generator) -> Iterator[Decision]:
    reasons = REASONS.get(step.name, [])
    for chance, reason in zip(rng.random(len(given)), rng.integers(0, 100, len(given)), strict=True):
        if reasons and chance < LOST:
            yield Decision("rejected", reasons[reason % len(reasons)])
        elif step.name == "source" and chance < 0.001:
            yield Decision("failed", "OutOfMemoryError: CUDA out of memory")
        else:
            yield Decision("kept", "")


def _filled(stage: str, decision: Decision, rng: np.random.Generator) -> Decision:
    """The columns that the gallery reads, with synthetic values."""
    columns: dict[str, Any] = {}
    if stage == "instruct":
        columns = {"instruction": "make it red", "output_caption": "a red boat in a room"}
    elif stage == "source":
        columns = {"source_image": _picture(rng)}
    elif stage == "mask":
        columns = {"precise_mask": encode_png(np.full((64, 64), 255, np.uint8))}
    elif stage == "edit":
        columns = {"anchor": _picture(rng), "candidates": [{"image": _picture(rng), "mask": "soft"}] * 2}
    elif stage == "score":
        columns = {"scores": [dict(zip(MEASURED, rng.random(len(MEASURED)).tolist(), strict=True))] * 2}
    elif stage == "filter" and decision.status == "kept":
        columns = {"choice": 0}
    return Decision(decision.status, decision.reason, columns)


def _picture(rng: np.random.Generator) -> bytes:
    """A PNG of 64 x 64 pixels with noise, so that it has a realistic size."""
    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    return encode_png(coarse.repeat(8, 0).repeat(8, 1))


def measured(*command: str) -> tuple[float, float, str]:
    """Run an ``editpairs`` command. Returns wall seconds, peak memory in MB and its last line."""
    started = time.monotonic()
    call = [sys.executable, "-m", "pipeline.cli", *command]
    process = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024, told.strip().rpartition("\n")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", type=int, default=39_000, help="times nine stages: as many files")
    parser.add_argument("--folder", type=Path, help="where to keep it; a run that is there is measured again")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        run = RunFolder(folder / "large")
        if not run.events.exists():
            run = build(folder, options.parts)
        run.footers.unlink(missing_ok=True)
        commands = [
            ("status, no cache", ["status", str(run.root)]),
            ("status", ["status", str(run.root)]),
            ("cost", ["cost", str(run.root)]),
            ("report", ["report", str(run.root)]),
            ("report --rows 3000", ["report", str(run.root), "--rows", "3000"]),
        ]
        table = Table("command", "seconds", "peak MB", "told")
        for what, command in commands:
            seconds, peak, told = measured(*command)
            table.add_row(what, f"{seconds:.1f}", f"{peak:.0f}", told[:80])
            console.print(f"{what}: {seconds:.1f} s, {peak:.0f} MB", highlight=False)
        size = (run.root / "report.html").stat().st_size / 2**20
        table.add_row("report.html of 3000 rows", "", "", f"{size:.1f} MB")
    console.print(table)


if __name__ == "__main__":
    main()
