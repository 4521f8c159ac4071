"""The fingerprint of a stage: a hash of everything besides its input rows that can change its output.

Equal fingerprints mean equal output for equal input. A fingerprint covers the stage's version, its resolved
config without ``resources``, the content of its weights (not their path), and the task-file keys that the
stage declares.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.manifest.manifest import SHARED
from stages.base import Section, Stage, StageConfig, Weights
from stages.placed import Chain
from stages.tasks import Tasks


def stage_identity(
    section: str, stage: type[Stage[Any]], config: StageConfig, tasks: Tasks
) -> dict[str, Any]:
    """The settings that a stage's fingerprint covers, by dotted manifest key. They are equal in all turns.

    Args:
        section: name of the stage's section in the manifest.
        stage: the stage's class.
        config: the resolved section.
        tasks: the tasks of the run.

    Raises:
        UserError: a folder of weights is missing; the message names its key.
    """
    identity: dict[str, Any] = {"version": stage.version}
    identity |= {f"column {field.name}": str(field.type) for field in stage.schema}
    identity |= dict(_flatten(section, config))
    keys = {*stage.task_keys, *config.task_keys}
    for task in sorted(tasks):
        content = _stated(tasks[task], tasks[task].model_dump(mode="json", include=keys))
        identity |= {f"task {task}: {key}": value for key, value in content.items()}
    return identity


def identities_of(
    stages: Chain, configs: Mapping[str, StageConfig], tasks: Tasks
) -> dict[str, dict[str, Any]]:
    """The identity of each stage of a run, by step; errors as of :func:`stage_identity`.

    In a run of several rounds it also covers the rows that a step is given.
    """
    return {
        step: stage_identity(placed.name, placed.stage, configs[step], tasks)
        | {f"given {given.step}: {given.status}": ", ".join(given.final) for given in placed.given}
        for step, placed in stages.items()
    }


def check_made_for(configs: Mapping[str, StageConfig], identities: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that sections made for certain models are used with these (``StageConfig.made_for``).

    Raises:
        UserError: a model is another one. The message names its key.
    """
    there = models_of(identities.values())
    for step, config in configs.items():
        for key, wanted in config.made_for.items():
            if there.get(key) != wanted:
                raise UserError(
                    f"{step}: it was made for scores by {key} = {wanted}, but this run has "
                    f"{there.get(key, 'no such model')}: calibrate again with verdicts about this run"
                )


def fingerprint(identity: Mapping[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per key that differs."""
    return [
        f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def models_of(identities: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The models of some stages: manifest key -> hub name with revision, or hash of the files."""
    leaves = {key: str(value) for identity in identities for key, value in identity.items()}
    return {key: leaves[key] for key in sorted(leaves) if key.endswith(".model")}


def model_identity(key: str, weights: Weights) -> str:
    """Identify a model: ``content:<hash>`` for a local file or folder, ``name@revision`` for a hub model.

    The hash leaves out hidden files and Markdown files.

    Raises:
        UserError: the file or folder does not exist.
    """
    if not weights.model:
        raise UserError(f"{key}.model is empty: name a local folder or a hub model")
    path = weights.path
    if path is None:
        return f"{weights.model}@{weights.revision or 'main'}"
    try:
        if stats := _stats(path):
            return "content:" + _hash_files(path, tuple(stats))
    except OSError as error:
        raise UserError(
            f"{key}.model: {error.filename or path} cannot be read: {error.strerror or error}"
        ) from error
    raise UserError(
        f"{key}.model: there are no weights at {weights.model} (looked in {Path.cwd()}); "
        "put them there, or point the key at another folder or a hub name"
    )


def _stats(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and modification time of each file. A folder that cannot be listed raises an error."""
    files = [path] if path.is_file() else []
    for folder, _, names in os.walk(path, onerror=_fail):
        files += [Path(folder, name) for name in names if Path(folder, name).is_file()]
    stats = []
    for file in sorted(files):
        name = file.relative_to(path)
        if file.suffix != ".md" and not any(part.startswith(".") for part in name.parts):
            stat = file.stat()
            stats.append((str(name), stat.st_size, stat.st_mtime_ns))
    return stats


def _fail(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@lru_cache
def _hash_files(folder: Path, stats: tuple[tuple[str, int, int], ...]) -> str:
    """Hash file names and contents.

    Results are cached, because stages share models; a changed file is read again.
    """
    content = hashlib.blake2b(digest_size=16)
    for name, size, _ in stats:
        content.update(f"{name}\x1f{size}\x1f".encode())
        with (folder / name).open("rb") as stream:
            while chunk := stream.read(1 << 22):
                content.update(chunk)
    return content.hexdigest()


def _stated(section: Section, dumped: Mapping[str, Any]) -> dict[str, Any]:
    """What ``section`` dumped, without the keys that have the value they imply, also in lists of sections."""
    stated = {}
    for name, value in dumped.items():
        own = getattr(section, name)
        if name in section.implied and own == section.implied[name]:
            continue
        if isinstance(own, tuple) and own and isinstance(own[0], Section):
            value = [_stated(item, each) for item, each in zip(own, value, strict=True)]
        stated[name] = value
    return stated


def _flatten(key: str, value: Any) -> list[tuple[str, Any]]:
    """The leaves of a config by dotted key. Shared sections keep their own name."""
    if isinstance(value, Section) and not value.identity:
        return []
    if isinstance(value, Section):
        parts = key.split(".")
        if len(parts) > 1 and parts[1] in SHARED:
            key = ".".join(parts[1:])
        leaves = []
        for name in type(value).model_fields:
            if isinstance(value, Weights) and name == "revision":
                continue
            if name in value.implied and getattr(value, name) == value.implied[name]:
                continue
            if isinstance(value, Weights) and name == "model":
                leaves.append((f"{key}.model", model_identity(key, value)))
            elif name in value.digested:
                leaves += _digest(f"{key}.{name}", getattr(value, name))
            else:
                leaves += _flatten(f"{key}.{name}", getattr(value, name))
        return leaves
    if isinstance(value, Mapping):
        return [leaf for name in value for leaf in _flatten(f"{key}.{name}", value[name])]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [leaf for i, item in enumerate(value) for leaf in _flatten(f"{key}.{i}", item)]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a default of 0 and a parsed 0.0 are the same setting
    return [(key, value if value is None or isinstance(value, bool | int | float | str) else str(value))]


def _digest(key: str, value: Section | None) -> list[tuple[str, Any]]:
    """One leaf for a whole section; none if it is not set, so that older runs keep their fingerprints."""
    return [] if value is None else [(key, f"content:{fingerprint(value.model_dump(mode='json'))}")]


def _short(value: Any) -> str:
    text = "(not set)" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"
