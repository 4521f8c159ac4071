"""The manifest: one YAML file that says what a run is, read into frozen typed models."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model, model_validator
from typing_extensions import Self

from pipeline.errors import UserError
from pipeline.storage import Location, locate
from stages.base import Section, StageConfig
from stages.tasks import TaskError, Tasks, load_tasks

SHARED = ("diffusion", "grounding", "clip")
"""Top-level sections that fill the field of the same name in every stage that has one."""

Stages = Mapping[str, Any]
"""Stage classes (``stages.base.Stage``) by name, in the order of the pipeline."""


class Captions(Section):
    file: str = Field(description="parquet, jsonl, csv or txt; a path or a URL such as s3://bucket/file")

    @property
    def location(self) -> Location:
        return locate(self.file)

    column: str = Field(default="caption", description="not used for txt")
    duplicates: Literal["drop", "keep"] = Field(default="drop", description="of captions that occur again")


class Mixture(Section):
    mixture: Mapping[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="share of the rows by task; the weights need not sum to 1"
    )
    prompts: Path = Field(default=Path("prompts"), description="the folder of task files")
    exemplars: Path | None = Field(default=None, description="exemplars that replace those of the task files")


class RayOptions(Section):
    address: str | None = Field(default=None, description="a cluster to join; RAY_ADDRESS does the same")
    dashboard: bool = Field(default=False, description="serve Ray's dashboard on loopback")


class Manifest(Section):
    """What a run is. ``read_manifest`` adds one field a stage."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="the run's folder")
    seed: int = 0
    captions: Captions
    rows: int | None = Field(default=None, ge=1, description="plan at most so many edits")
    turns: int = Field(default=1, ge=1, le=9, description="edits in a row, each of the picture before")
    repeats: int = Field(default=1, ge=1, description="edits a caption, each with its own task and seed")
    rows_per_part: int = Field(default=32, ge=1, le=100_000)
    runs: str = Field("runs", description="the folder of all runs; a path or a URL such as s3://bucket/runs")
    tasks: Mixture
    ray: RayOptions = RayOptions()

    @model_validator(mode="after")
    def _repeats_fit(self) -> Self:
        if self.repeats > self.rows_per_part:
            raise ValueError("rows_per_part must be at least repeats: a caption's edits lie in one part")
        return self

    @property
    def folder(self) -> Location:
        return locate(self.runs) / self.name

    def section(self, stage: str) -> StageConfig:
        """The config of a stage, shared sections filled in; ``edit.2`` has that of ``edit``."""
        return getattr(self, stage.partition(".")[0])


def read_manifest(path: Path, overrides: Sequence[str], stages: Stages) -> Manifest:
    """Read a manifest and apply ``key=value`` overrides (dotted keys, values in YAML).

    Raises:
        UserError: the file is missing or wrong, or a key is unknown; all wrong keys are named.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the manifest {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the manifest {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"the manifest {path} must hold a mapping of keys to values")
    for override in overrides:
        content = apply_override(content, override)
    return parse_manifest(content, stages, str(path))


def tasks_of(manifest: Manifest) -> Tasks:
    """The tasks of the mixture, from their files.

    Raises:
        UserError: a file is missing or wrong; the message names it.
    """
    try:
        return load_tasks(manifest.tasks.prompts, manifest.tasks.exemplars, list(manifest.tasks.mixture))
    except TaskError as error:
        raise UserError(str(error)) from error


def apply_override(content: Mapping[str, Any], override: str) -> dict[str, Any]:
    """A copy of ``content`` with ``a.b.c=value`` applied; sections on the way are made as needed."""
    key, separator, text = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise UserError(f"--set {override}: write key=value, such as filter.default.clip_direction=0.2")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML: {error}") from error
    result = copy.deepcopy(dict(content))
    section = result
    for name in names[:-1]:
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            raise UserError(f"--set {override}: {name!r} is not a section of the manifest")
    section[names[-1]] = value
    return result


def parse_manifest(content: Mapping[str, Any], stages: Stages, source: str) -> Manifest:
    """Check ``content`` against the fields of ``Manifest`` and the stages' configs."""
    raw = copy.deepcopy(dict(content))
    shared = {
        name: raw.pop(name, None)
        for name in SHARED
        if any(name in stage.Config.model_fields for stage in stages.values())
    }
    for name, stage in stages.items():
        section = raw.setdefault(name, {})
        section = raw[name] = {} if section is None else section
        if not isinstance(section, dict):
            continue
        for key in shared:
            if key not in stage.Config.model_fields:
                continue
            if key in section:
                raise UserError(f"{source}: {name}.{key}: write it as the top-level section {key!r}")
            if shared[key] is not None:
                section[key] = shared[key]
    model = manifest_model(stages)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(e, model, list(shared)) for e in error.errors())
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from error


def manifest_model(stages: Stages) -> type[Manifest]:
    """``Manifest`` with a section a stage, shared sections filled in: what a lock file holds."""
    fields: dict[str, Any] = {name: (stage.Config, ...) for name, stage in stages.items()}
    return create_model("Manifest", __base__=Manifest, **fields)


def _explain(error: Mapping[str, Any], model: type[BaseModel], shared: Sequence[str]) -> str:
    """One line on what is wrong with one key."""
    location = [str(part) for part in error["loc"]]
    siblings = _known_keys(model, location[:-1]) if location else []
    if len(location) == 1:
        siblings += shared
    if len(location) > 1 and location[1] in shared:
        location = location[1:]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], siblings, n=1, cutoff=0)
        hint = f"; did you mean {'.'.join([*location[:-1], *near])!r}?" if near else ""
        return f"unknown key {key!r}{hint}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    reason = error["msg"].removeprefix("Value error, ")
    value = "" if error["type"] == "value_error" else f", not {str(error['input'])[:80]!r}"
    if not key or reason.startswith(f"{key}."):
        return reason
    return f"{key}: {reason}{value}"


def _known_keys(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The keys of the section at ``location``."""
    for part in location:
        if part in model.model_fields:
            inner = _models_in(model.model_fields[part].annotation)
            if not inner:
                return []
            model = inner[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
