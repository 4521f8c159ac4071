"""``editpairs regenerate``: make one row again, stage by stage, and compare it with the committed row.

Each stage gets the committed output of the stages before it. A difference therefore comes from this stage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.engine.given import given_rows
from pipeline.engine.guarded import Guarded
from pipeline.engine.preflight import check_light_stages
from pipeline.engine.pruning import lacking
from pipeline.engine.sizing import sized
from pipeline.engine.state import RunState
from pipeline.engine.threads import limit_threads
from pipeline.errors import UserError, stopping
from pipeline.inputs.pictures import pictures_of
from pipeline.manifest.fingerprint import differences, fingerprint, identities_of
from pipeline.manifest.lockfile import locked_tasks, read_lock
from pipeline.manifest.manifest import Manifest
from pipeline.store.plan import read_part
from pipeline.store.sealed import read_metadata, read_table
from stages.base import StageConfig
from stages.placed import Chain


@dataclass(frozen=True)
class Verdict:
    """Result of one stage for the row. ``different`` maps each differing column to a description."""

    stage: str
    status: str
    different: Mapping[str, str]
    why: str = ""
    made: bool = True
    """False if the stage could not run: a column that it reads was pruned."""


def regenerate(manifest: Manifest, stages: Chain, state: RunState, row_id: str) -> Iterator[Verdict]:
    """Run each stage on the row alone and compare the results.

    Stages that have not committed the row, and stages that compare rows of the whole run, are skipped.
    Published files are not written again.

    Raises:
        UserError: the run has no such row.
    """
    part = find_row(state, row_id)
    tasks = locked_tasks(state.folder.lock)
    check_light_stages(stages, manifest.configs(stages), tasks)
    known = read_lock(state.folder.lock).get("identities", {})
    for step in state.steps.values():
        if step.publishes or step.wide:
            continue
        if not state.done(step, part):
            if (step.name, part) in state.damaged:
                raise state.damaged[step.name, part]
            return
        placed = stages[step.name]
        path = state.folder.part(step.name, part)
        if row_id not in read_table(path, ["id"])["id"].to_pylist():
            continue
        stored = read_table(path)
        stored = stored.filter(pa.compute.equal(stored["id"], row_id))
        status = stored["status"][0].as_py()
        if gone := lacking(state, placed, part):
            told = "; ".join(f"{', '.join(columns)} of {name}" for name, columns in gone.items())
            yield Verdict(step.name, status, {}, f"it reads {told}: pruned", made=False)
            continue
        config = manifest.section(step.stage, StageConfig)
        identity = identities_of({step.name: placed}, {step.name: config}, tasks)[step.name]
        why = ""
        if fingerprint(identity) != step.fingerprint:
            why = "made with other settings: " + "; ".join(
                differences(known.get(step.fingerprint, {}), identity)
            )
        own = state.footer(step, part)
        if own is not None and own.pruned is not None:
            why += f"{'; ' if why else ''}not compared, because pruned: {', '.join(own.pruned.columns)}"
        footer, _ = read_metadata(path, state.place(step, part))
        if "smallest_batch" in footer:
            smallest = footer["smallest_batch"]
            why += f"{'; ' if why else ''}memory was too small: batches down to {smallest} rows"
        config = sized(config, footer.get("smallest_batch"))
        limit_threads(config.resources.threads)
        ids = pa.array([row_id])
        pictures = pictures_of(manifest.captions)
        (rows,) = given_rows(state.folder, step, placed, part, ids, config.batch, {}, pictures)
        with stopping(step.name, "start"):
            loaded = placed.load(config, tasks)
        made, _ = Guarded(step.name, loaded, config.batch)(rows)
        # Without ``pipeline.engine.reuse.MADE_FROM``, and without what was pruned.
        stored = stored.select([name for name in made.column_names if name in stored.column_names])
        yield Verdict(step.name, status, compare(stored, made), why)


def find_row(state: RunState, row_id: str) -> int:
    """The number of the part that holds a row."""
    for part in range(state.plan.parts):
        if row_id in read_part(state.folder.plan, part, ["id"])["id"].to_pylist():
            return part
    raise UserError(f"{state.folder.root} plans no row {row_id!r}: inspect and report show ids")


def compare(stored: pa.Table, made: pa.Table) -> dict[str, str]:
    """The columns in which two records of one row differ, with a description of the difference."""
    before, after = stored.to_pylist()[0], made.to_pylist()[0]
    return {name: _apart(before[name], after.get(name)) for name in before if before[name] != after.get(name)}


def _apart(before: Any, after: Any) -> str:
    """Describe how two values differ; pictures are compared by pixels."""
    if isinstance(before, bytes) and isinstance(after, bytes):
        from stages.pictures.png import decode_rgb

        first, second = decode_rgb(before).astype(int), decode_rgb(after).astype(int)
        if first.shape != second.shape:
            return f"pictures of {first.shape} and {second.shape}"
        change = abs(first - second)
        return f"{(change.max(-1) > 0).mean():.2%} of the pixels, by {change.max()} levels at most"
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(f"{k}: {_apart(v, after.get(k))}" for k, v in before.items() if v != after.get(k))
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return ", ".join(f"[{k}] {_apart(a, b)}" for k, (a, b) in pairs if a != b)
    if isinstance(before, float) and isinstance(after, float):
        return f"{after - before:+.3g}"
    return f"{str(before)[:60]!r}, now {str(after)[:60]!r}"
