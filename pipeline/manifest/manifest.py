"""The manifest: one YAML file that describes a run, read into frozen typed models."""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from pipeline.errors import UserError
from pipeline.manifest.captions import Captions, Folder, Place
from pipeline.manifest.manifest_errors import MOST_SHOWN, explain
from pipeline.store.location import Location, locate
from stages.base import ConfigT, Stage, StageConfig
from stages.placed import Chain
from stages.section import Section
from stages.strict_yaml import YamlError, parse_yaml, read_yaml
from stages.tasks import Tasks, load_tasks

SHARED = ("diffusion", "grounding", "clip")
"""Top-level sections. Each fills the field of the same name in every stage that has such a field."""

MOST_LEVELS = 20
"""Most levels of a dotted key."""
Stages = Mapping[str, type[Stage[Any]]]
"""Stage classes by name, in the order of the pipeline."""


class Mixture(Section):
    mixture: Mapping[str, Annotated[float, Field(gt=0, le=1e9)]] = Field(
        min_length=1, description="share of the rows by task; the weights need not sum to 1"
    )
    prompts: Folder = Field(default=Path("prompts"), description="the folder of task files")
    exemplars: Folder | None = Field(
        default=None, description="exemplars that replace those of the task files"
    )
    methods: Mapping[str, Literal["editor"]] = Field(
        {}, description="by task: editor instead of the task file's method (docs/models.md)"
    )


class RayOptions(Section):
    address: str | None = Field(default=None, description="a cluster to join; RAY_ADDRESS does the same")

    @field_validator("address")
    @classmethod
    def _without_secrets(cls, address: str | None) -> str | None:
        if address is not None and "@" in address:
            raise ValueError("an address of Ray is host:port; it may hold no user and no password")
        return address

    dashboard: bool = Field(default=False, description="serve Ray's dashboard on loopback")


class Manifest(Section):
    """The description of a run. ``read_manifest`` adds one field per stage."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="the run's folder")
    seed: int = Field(default=0, ge=-(2**63), le=2**63 - 1)
    captions: Captions
    rows: int | None = Field(default=None, ge=1, le=10**12, description="plan at most so many edits")
    turns: int = Field(default=1, ge=1, le=9, description="edits in a row, each of the picture before")
    rounds: int = Field(
        default=1,
        ge=1,
        le=9,
        description="times a row is drawn, with other seeds, gates and masks, until a candidate passes",
    )
    repeats: int = Field(
        default=1, ge=1, le=100_000, description="edits a caption, each with its own task and seed"
    )
    rows_per_part: int = Field(default=32, ge=1, le=100_000)
    runs: Place = Field(
        "runs", description="the folder of all runs; a path or a URL such as s3://bucket/runs"
    )
    tasks: Mixture
    ray: RayOptions = RayOptions()

    @model_validator(mode="after")
    def _kept_columns_are_of_pictures(self) -> Self:
        if self.captions.keep and self.turns > 1:
            raise ValueError("captions.keep: the turns of a session are not published with them: take it out")
        return self

    @model_validator(mode="after")
    def _pictures_are_edited_once(self) -> Self:
        if self.captions.picture is not None and self.turns > 1:
            raise ValueError("captions.picture: sessions begin with a drawn picture: set turns: 1")
        return self

    @model_validator(mode="after")
    def _every_row_gets_a_caption(self) -> Self:
        describes, captions = "describe" in self.sections, self.captions
        if describes and captions.picture is None:
            raise ValueError("describe: it captions the rows' own pictures: set captions.picture")
        if captions.column is None and not describes:
            raise ValueError(
                "captions.column: null leaves all rows without captions: add a section describe, which "
                "writes captions of the rows' pictures, or name the column"
            )
        return self

    @model_validator(mode="after")
    def _repeats_fit(self) -> Self:
        if self.repeats > self.rows_per_part:
            raise ValueError("rows_per_part must be at least repeats: a caption's edits lie in one part")
        return self

    @property
    def folder(self) -> Location:
        return locate(os.path.expanduser(self.runs)) / self.name

    @property
    def left_out(self) -> set[str]:
        """The optional stages that do not run, because the manifest has no section for them."""
        sections = type(self).model_fields.keys() - Manifest.model_fields.keys()
        return {name for name in sections if getattr(self, name) is None}

    @property
    def sections(self) -> dict[str, StageConfig]:
        """The sections of the stages that run, by stage."""
        return {name: value for name, value in self if isinstance(value, StageConfig)}

    def section(self, stage: str, kind: type[ConfigT]) -> ConfigT:
        """The config of a stage, with its shared sections filled in.

        Args:
            stage: name of the stage; it has one section for all turns.
            kind: the class of the section.

        Raises:
            TypeError: there is no such section, or it is of another class.
        """
        found = getattr(self, stage, None)
        if not isinstance(found, kind):
            raise TypeError(
                f"section {stage!r} of the manifest is {type(found).__name__}, not {kind.__name__}"
            )
        return found

    def configs(self, stages: Chain) -> dict[str, StageConfig]:
        """The sections of a run's stages, by step."""
        return {step: self.section(placed.name, placed.stage.Config) for step, placed in stages.items()}


def read_manifest(path: Path, overrides: Sequence[str], stages: Stages) -> Manifest:
    """Read a manifest and apply ``key=value`` overrides (dotted keys, values in YAML).

    Raises:
        UserError: the file is missing or invalid, or keys are unknown. The message names every wrong key.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise UserError(f"the manifest {path} cannot be read: {error.strerror or error}") from error
    except YamlError as error:
        raise UserError(f"the manifest {path} {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"the manifest {path} must hold a mapping of keys to values")
    for override in overrides:
        content = apply_override(content, override)
    return parse_manifest(content, stages, str(path))


def tasks_of(manifest: Manifest) -> Tasks:
    """The tasks in the mixture, read from their files.

    Raises:
        UserError: a file is missing or invalid. The message names the file.
    """
    try:
        section = manifest.tasks
        tasks = load_tasks(section.prompts, section.exemplars, list(section.mixture), section.methods)
        tasks.check_known(section.methods, "tasks.methods")
        return tasks
    except ValueError as error:
        raise UserError(str(error)) from error


def apply_override(content: Mapping[str, Any], override: str) -> dict[str, Any]:
    """A copy of ``content`` with the override ``a.b.c=value``. Missing sections are created."""
    key, separator, text = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names) or len(names) > MOST_LEVELS:
        shown = override[:MOST_SHOWN]
        raise UserError(f"--set {shown}: write key=value, such as filter.default.clip_direction=0.2")
    try:
        value = parse_yaml(text)
    except YamlError as error:
        raise UserError(f"--set {override[:MOST_SHOWN]}: the value {error}") from error
    result = copy.deepcopy(dict(content))
    section = result
    for name in names[:-1]:
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            raise UserError(f"--set {override[:MOST_SHOWN]}: {name!r} is not a section of the manifest")
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
        if stage.needs_section and raw.get(name) is None:
            raw[name] = None
            continue
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
        lines = explain(error, raw, model, shared)
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from error


def manifest_model(stages: Stages) -> type[Manifest]:
    """``Manifest`` with one field per stage and the shared sections filled in: the content of a lock file."""
    fields: dict[str, Any] = {
        name: (stage.Config | None, None) if stage.needs_section else (stage.Config, ...)
        for name, stage in stages.items()
    }
    return create_model("Manifest", __base__=Manifest, **fields)
