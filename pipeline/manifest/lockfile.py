"""``manifest.lock.yaml``: the settings a run was made with. The guard compares new settings with them.

It holds the resolved manifest and the content of its task files, so a run can be read, checked and exported
wherever its folder lies. The first line holds a checksum of the rest, so that a changed lock file is noticed
before it is used.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from pipeline.errors import UserError
from pipeline.manifest.steps import Step
from pipeline.store.location import Location
from pipeline.store.new_file import write_text
from stages.tasks import Task, TaskError, Tasks, load_tasks

if TYPE_CHECKING:
    from pipeline.manifest.manifest import Manifest, Stages

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_STEP = TypeAdapter(Step)
_FIRST_LINE = "# Written by editpairs, not to be edited. blake2b of what follows: "


class _Content(BaseModel):
    """The sections of a lock file. Manifest and tasks are checked by their own models when they are used."""

    model_config = ConfigDict(strict=True)

    manifest: dict[str, Any]
    tasks: dict[str, dict[str, Any]] = {}
    known_tasks: list[str] = []
    steps: list[dict[str, Any]]
    identities: dict[str, dict[str, Any]]


def read_lock(path: Location) -> dict[str, Any]:
    """Read a lock file; the result is empty if the file does not exist.

    Raises:
        OSError: the file cannot be read.
        UserError: the file was changed after it was written, or another version wrote it.
    """
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return {}
    try:
        if first != _first_line(rest):
            raise ValueError("its checksum is wrong")
        content: dict[str, Any] = yaml.load(rest, Loader=_Loader)
        _Content.model_validate(content)
        locked_steps(content)
    except (ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
        raise UserError(
            f"{path} is damaged: it is not what generate wrote, or another version wrote it. Delete it "
            "and give the same generate command again; it is written anew, and committed parts stay"
        ) from error
    return content


def write_lock(
    path: Location,
    manifest: "Manifest",
    tasks: Tasks,
    steps: Sequence[Step],
    identities: Mapping[str, Mapping[str, Any]],
    in_use: Iterable[str],
) -> None:
    """Write the lock file, unless it already has this content.

    Args:
        manifest: the resolved manifest.
        tasks: the tasks of its mixture.
        steps: the steps of the run.
        identities: by stage, the settings that its fingerprint covers.
        in_use: the fingerprints of committed files. Their settings are kept, so that the guard can name
            the key that changed.
    """
    old = read_lock(path)
    known = {step.fingerprint: dict(identities[step.name]) for step in steps}
    earlier = {key: old["identities"][key] for key in in_use if key in old.get("identities", {})}
    content = {
        "manifest": manifest.model_dump(mode="json", exclude=manifest.left_out),
        "tasks": {name: task.model_dump(mode="json") for name, task in tasks.items()},
        "known_tasks": sorted(tasks.known),
        "steps": [_step_content(step) for step in steps],
        "identities": earlier | known,
        "packages": dict(_packages()),
    }
    if content == old:
        return
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    write_text(path, f"{_first_line(text.encode()).decode()}\n{text}")


@cache
def _packages() -> list[tuple[str, str]]:
    """Name and version of every installed package, cached: listing them takes longer than a small run."""
    from importlib.metadata import distributions

    return sorted((found["Name"], found["Version"]) for found in (d.metadata for d in distributions()))


def _first_line(rest: bytes) -> bytes:
    return (_FIRST_LINE + hashlib.blake2b(rest, digest_size=16).hexdigest()).encode()


def _step_content(step: Step) -> dict[str, Any]:
    """A step in types of YAML."""
    given = [asdict(given) | {"final": list(given.final)} for given in step.given]
    return asdict(step) | {"inputs": list(step.inputs), "given": given}


def locked_steps(content: Mapping[str, Any]) -> list[Step]:
    """The steps of a run, read from its lock file without importing a stage.

    Raises:
        ValueError, TypeError, KeyError: they are not the steps of a run.
    """
    steps = [_STEP.validate_python(_locked_step(dict(step))) for step in content["steps"]]
    for number, step in enumerate(steps):
        sizes = (step.turn, step.round, 1 if step.parts_per_unit is None else step.parts_per_unit)
        fits = re.fullmatch(r"\w+", step.stage) and min(sizes) > 0
        known = {*step.inputs, *(given.step for given in step.given)}
        if not fits or not known <= {before.name for before in steps[:number]}:
            raise ValueError(f"step {number} is not one of a run")
    return steps


def _locked_step(step: dict[str, Any]) -> dict[str, Any]:
    if "name" in step:  # locks written before the turn was a field have names such as ``edit.2``
        step["stage"], _, turn = step.pop("name").partition(".")
        step["turn"] = int(turn or 1)
    return step


def locked_manifest(path: Location, stages: "Stages") -> "Manifest":
    """The resolved manifest of a run's last generate.

    Raises:
        UserError: a version of editpairs with other manifest keys wrote the lock file.
    """
    from pipeline.manifest.manifest import manifest_model

    with _same_keys(path):
        return manifest_model(stages).model_validate(read_lock(path)["manifest"])


def locked_tasks(path: Location) -> Tasks:
    """The tasks of a run's last generate. An earlier version's lock holds none: they are read from its files.

    Raises:
        UserError: a version of editpairs with other task keys wrote the lock file; or it holds no tasks, and
            the task files are not where its manifest says.
    """
    content = read_lock(path)
    if "tasks" not in content:
        return _tasks_of_files(path, content["manifest"]["tasks"])
    with _same_keys(path):
        tasks = {name: Task.model_validate(task) for name, task in content["tasks"].items()}
    return Tasks(tasks, content["known_tasks"])


def _tasks_of_files(path: Location, named: Mapping[str, Any]) -> Tasks:
    exemplars = None if named["exemplars"] is None else Path(named["exemplars"])
    try:
        return load_tasks(Path(named["prompts"]), exemplars, list(named["mixture"]))
    except TaskError as error:
        raise UserError(
            f"{path} was written by an earlier version, which did not keep the tasks: {error}. Give this "
            "command in the folder where the run was made, or generate again there, which adds them"
        ) from error


@contextmanager
def _same_keys(path: Location) -> Iterator[None]:
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        raise UserError(f"{path} was written by a version with other keys: run generate again") from error
