"""``generate`` and ``rerun``: run the stages in order, on exactly the parts that are missing or stale."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from pipeline.engine.disk import shortage_of
from pipeline.engine.jobs import Job, Result, Unit
from pipeline.engine.local_backend import LocalBackend
from pipeline.engine.opened import Engine, Run, check_before, opened
from pipeline.engine.progress import Progress
from pipeline.engine.publish import publish
from pipeline.engine.replacing import refuse_to_replace
from pipeline.engine.sizing import fitted_batch, sized
from pipeline.engine.state import RunState
from pipeline.engine.todo import Forced, pruned_inputs, units_to_run
from pipeline.errors import StageError, UserError
from pipeline.inputs.pictures import pictures_of
from pipeline.manifest.fingerprint import models_of
from pipeline.manifest.lockfile import write_lock
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.steps import Step
from pipeline.store import events
from pipeline.store.files import remove
from pipeline.store.folder import RunFolder
from pipeline.store.location import exists
from pipeline.store.new_file import write_text
from pipeline.store.parts import Footer
from stages.base import AUTO, StageConfig
from stages.placed import Chain


class Backend(Protocol):
    """Runs units: a plain loop, or Ray."""

    def run(self, job: Job, units: Sequence[Unit]) -> Iterator[Result]: ...

    def close(self) -> None: ...


def generate(
    manifest: Manifest,
    stages: Chain,
    *,
    progress: Progress,
    wave: int | None = None,
    engine: Engine = "ray",
    replace: bool = False,
) -> RunState:
    """Run what is missing or stale.

    Args:
        manifest: the manifest of the run.
        stages: the run's stages, by step.
        progress: informed about every committed file.
        wave: run only the first ``wave`` parts, through every stage.
        engine: where stages that are not light run.
        replace: whether committed parts of expensive stages may be replaced.

    Raises:
        UserError: the input is wrong; nothing was run.
        StageError: a stage could not continue; committed files stay.
    """
    with opened(manifest, stages, engine) as run:
        parts = range(run.plan.parts)[:wave]
        if not replace:
            refuse_to_replace(run, parts, consent=None)
        if short := shortage_of(run, parts):
            progress.note(short)
        _advance(run, parts, None, engine, progress)
        return run.state


def rerun(
    manifest: Manifest,
    stages: Chain,
    stage: str,
    *,
    progress: Progress,
    parts: range | None = None,
    retry_failed: bool = False,
    engine: Engine = "ray",
    replace: bool = False,
) -> RunState:
    """Run a stage again on parts that it has committed, then everything that became stale.

    Args:
        manifest: the manifest of the run.
        stages: the run's stages, by step.
        stage: the stage to run again.
        progress: informed about every committed file.
        parts: the parts; None for all parts that the stage has committed.
        retry_failed: run only failed rows; other records stay.
        engine: where stages that are not light run.
        replace: whether committed parts of other expensive stages may be replaced.

    Raises:
        UserError: as for ``generate``; or the stage or parts are unknown, or nothing was committed.
        StageError: a stage could not continue; committed files stay.
    """
    if stage not in stages:
        raise UserError(f"--stage {stage}: the stages are {', '.join(stages)}")
    if not exists(RunFolder(manifest.folder).plan):
        raise UserError(f"there is no run at {manifest.folder} yet: start it with generate")
    with opened(manifest, stages, engine) as run:
        step = run.state.steps[stage]
        if parts is not None and parts.stop > run.plan.parts:
            raise UserError(f"--parts: {run.folder.root} has parts 0-{run.plan.parts - 1}")
        units = step.units(range(run.plan.parts) if parts is None else parts)
        footers = {unit: run.state.footer(step, unit) for unit in units}
        chosen = [u for u, f in footers.items() if f and (not retry_failed or f.total("failed"))]
        if not any(footers.values()):
            raise UserError(f"{stage} has not committed any of these parts yet: run generate")
        scope = [part for unit in chosen for part in step.parts(unit, run.plan.parts)]
        if parts is not None:
            scope = [part for part in scope if part in parts or step.publishes]
        if not replace:
            refuse_to_replace(run, scope, consent=stage)
        _advance(run, scope, Forced(stage, frozenset(chosen), retry_failed), engine, progress)
        return run.state


def _check_rest(run: Run, parts: Sequence[int], forced: Forced | None, engine: Engine) -> None:
    """The same checks for a continued run: from the first stage with work to do onwards."""
    for index, step in enumerate(run.steps):
        if units_to_run(run, step, parts, forced):
            check_before(run.manifest, {s.name: run.stages[s.name] for s in run.steps[index:]}, engine)
            return


def _advance(
    run: Run, parts: Sequence[int], forced: Forced | None, engine: Engine, progress: Progress
) -> None:
    if not run.fresh:
        _check_rest(run, parts, forced, engine)
    in_use = {f.fingerprint for step in run.steps for f in _footers(run, step) if f}
    write_lock(run.folder.lock, run.manifest, run.tasks, run.steps, run.identities, in_use)
    remove(run.folder.last_error)
    for error in run.state.damaged.values():
        progress.note(f"{error}; it is made again")
    local = LocalBackend()
    backend = local if engine == "local" else _ray(run.manifest)
    try:
        names = [step.name for step in run.steps]
        whole: dict[str, set[int]] = defaultdict(set)
        place = 0
        while place < len(run.steps):
            step = run.steps[place]
            everywhere = any(before.wide for before in run.steps[: place + 1])
            scope = range(run.plan.parts) if everywhere and step.light else parts
            units = units_to_run(run, step, scope, forced, whole[step.name])
            if missing := pruned_inputs(run, step, units):
                for name, pruned in missing.items():
                    progress.note(f"{name}: {len(pruned)} pruned parts are made again for {step.name}")
                    check_before(run.manifest, {name: run.stages[name]}, engine)
                    whole[name] |= pruned
                place = min(map(names.index, missing))
                continue
            if units:
                _run_stage(run, step, units, local if step.light else backend, progress)
            place += 1
        for note in publish(run):
            progress.note(note)
    except StageError as error:
        with suppress(OSError):  # the disk itself may be the problem
            if error.details:
                write_text(run.folder.last_error, error.details)
        raise
    finally:
        backend.close()


def _ray(manifest: Manifest) -> Backend:
    from pipeline.engine.ray_backend import RayBackend

    return RayBackend(manifest.ray)


def _footers(run: Run, step: Step) -> Iterator[Footer | None]:
    return (run.state.footer(step, unit) for unit in step.units(range(run.plan.parts)))


def _run_stage(run: Run, step: Step, units: Sequence[Unit], backend: Backend, progress: Progress) -> None:
    config = run.manifest.section(step.stage, StageConfig)
    fitted = fitted_batch(run.folder.events, step.name) if config.batch == AUTO else None
    job = Job(
        folder=run.folder,
        plan=run.plan,
        steps=run.steps,
        step=step,
        placed=run.stages[step.name],
        config=sized(config, fitted),
        tasks=run.tasks,
        models=models_of(run.identities.values()),
        pictures=pictures_of(run.manifest.captions),
    )
    given = {unit.number: run.state.given(step, unit.parts) for unit in units}
    last = time.monotonic()
    with progress.stage(step.name, len(units), sum(given.values())) as advance:
        for result in backend.run(job, units):
            now = time.monotonic()
            run.check()
            run.state.refresh(step, result.unit)
            if run.state.footer(step, result.unit) is None:
                why = run.state.damaged.get((step.name, result.unit), "it is not there")
                raise StageError(
                    f"{run.state.path(step, result.unit)} was written, and right after: {why}. "
                    "Something else deletes or changes files of the run"
                )
            events.append(
                run.folder.events,
                stage=step.name,
                unit=result.unit,
                rows=result.rows,
                seconds=round(result.seconds, 3),
                cpu_seconds=round(result.cpu_seconds, 3),
                gpu_seconds=round(result.seconds * job.config.resources.gpus, 3),
                wall=round(now - last, 3),
                **result.tokens,
                **({"smallest_batch": result.smallest_batch} if result.smallest_batch else {}),
            )
            if result.smallest_batch:
                advice = "" if config.batch == AUTO else f": lower {step.name}.batch"
                progress.note(
                    f"{step.name}: memory was too small in {result.unit:05d}; batches down to "
                    f"{result.smallest_batch} of {job.config.batch} rows{advice}"
                )
            where = f"{step.name}/{run.state.path(step, result.unit).name}"
            progress.detail(f"{where}: {result.rows} rows, {result.seconds:.1f} s of a worker")
            last = now
            advance(given[result.unit])
