"""Checks before a run starts. They list all problems at once, before any stage costs time.

``editpairs check`` runs them for every stage, ``generate`` and ``rerun`` for the stages that have work to do.
They load no model and import no model library. Their only network access is one connection to each endpoint.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from pipeline.engine.threads import usable_cpus
from pipeline.errors import UserError, stopping
from pipeline.inputs.captions import caption_files
from pipeline.manifest.fingerprint import model_identity
from pipeline.manifest.manifest import SHARED, Manifest, tasks_of
from pipeline.store.location import is_local
from stages.base import Resources, StageConfig, Weights
from stages.placed import Chain, PlacedStage
from stages.tasks import Tasks


@dataclass(frozen=True)
class Machine:
    """CPUs and GPUs available to the stages, on this machine or on a machine given by the user."""

    cpus: int
    gpus: int

    @classmethod
    def here(cls) -> "Machine":
        devices = Path("/dev")
        gpus = len(list(devices.glob("nvidia[0-9]*")))
        if not gpus and (devices / "kfd").exists():  # AMD's
            gpus = len(list(devices.glob("dri/renderD*")))
        if not gpus and (devices / "dxg").exists():  # under Windows, which does not say how many
            gpus = 1
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            gpus = min(gpus, len([device for device in visible.split(",") if device.strip()]))
        return cls(usable_cpus(), gpus)


def problems(manifest: Manifest, stages: Chain, machine: Machine | None) -> list[str]:
    """List the problems that would stop ``stages``, one line per problem, with its manifest key.

    Args:
        manifest: the manifest of the run.
        stages: the stages that have work to do, by step.
        machine: the machine they run on; None if this machine cannot tell, as for a cluster.
    """
    found = [*_captions_problems(manifest), *_folder_problems(manifest)]
    try:
        tasks = tasks_of(manifest)
    except UserError as error:
        return [*found, str(error)]
    for name, config in manifest.configs(stages).items():
        found += stage_problems(stages[name], config, tasks)
        found += stages[name].stage.conflicts(config, tasks, manifest.sections)
        if machine is not None and not stages[name].stage.light:
            found += _misfits(stages[name].name, config.resources, machine)
    return list(dict.fromkeys(found))


def check_light_stages(stages: Chain, configs: Mapping[str, StageConfig], tasks: Tasks) -> None:
    """Construct the light stages. They load no model, so errors in their config appear at once."""
    for name, placed in stages.items():
        if placed.stage.light:
            with stopping(name, "start"):
                try:
                    placed.load(configs[name], tasks)
                except ValueError as error:
                    raise UserError(str(error)) from error


def judged_by(manifest: Manifest, machine: Machine) -> Machine | None:
    """The machine, or None if a cluster is joined: then this machine says nothing about its resources."""
    return None if manifest.ray.address or os.environ.get("RAY_ADDRESS") else machine


def _captions_problems(manifest: Manifest) -> Iterator[str]:
    try:
        caption_files(manifest.captions.location)
    except UserError as error:
        yield str(error)


def _folder_problems(manifest: Manifest) -> Iterator[str]:
    """Check that the run folder can be created. Nothing is left behind."""
    folder = manifest.folder
    if not is_local(folder):
        return
    try:
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        with tempfile.TemporaryDirectory(dir=there, prefix=".writable-"):
            pass
    except OSError as error:
        yield f"runs: {folder} cannot be written: {error.strerror or error}: name another folder under 'runs'"


def stage_problems(placed: PlacedStage, config: StageConfig, tasks: Tasks) -> Iterator[str]:
    """Problems that would stop one stage, one line each with its manifest key."""
    yield from _model_problems(placed.name, config)
    try:
        check_light_stages({placed.step: placed}, {placed.step: config}, tasks)
    except UserError as error:
        yield str(error)
    yield from placed.stage.problems(config, tasks)


def _model_problems(key: str, section: BaseModel) -> Iterator[str]:
    """Check that the weights named in a section and its subsections exist."""
    if isinstance(section, Weights):
        try:
            model_identity(key, section)
        except UserError as error:
            yield str(error)
    for name, value in section:
        if isinstance(value, BaseModel):
            yield from _model_problems(name if name in SHARED else f"{key}.{name}", value)


def _misfits(stage: str, resources: Resources, machine: Machine) -> Iterator[str]:
    kind = "gpus" if resources.gpus else "cpus"
    each, there = getattr(resources, kind), getattr(machine, kind)
    if each > there:
        yield (
            f"{stage}.resources.{kind}: a worker asks for {each:g}, there are {there}; "
            f"to check for another machine use check --{kind} N"
        )
