"""Edit tasks: one YAML file per task in ``prompts/``, read into frozen models."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from typing_extensions import Self

from stages.candidate import Candidate, Several
from stages.methods import DRAWN, Method
from stages.section import Section, key_of
from stages.shipped import resolve
from stages.strict_yaml import YamlError, read_yaml

RegionKind = Literal["object", "background", "all"]
"""The part of the picture that a task edits."""
Ground = Literal["original_object", "edited_object", "none"]
SLOTS = ("caption", "a_picture", "shown", "original_object", "edited_object", "the_edited_object")
"""Slots in an inverse's instruction and caption, written in braces (:mod:`stages.wording` fills them)."""
MOST_INDEX = 2**15 - 1
"""Largest task index: TI is published as a 16-bit integer."""


class Exemplar(Section):
    """A worked example, shown to the language model."""

    caption: str
    edit: str
    edited_object: str
    output_caption: str
    original_object: str
    surroundings: str = ""


class Fields(Section):
    """Required fields of an answer for this task; the instruct stage checks them."""

    original_object: Literal["in_input", "absent", "optional"]
    edited_object: Literal["in_output", "not_in_output", "absent", "optional"]
    caption: Literal["changed", "same"]
    surroundings: Literal["required", "optional"] = Field(
        "optional",
        description="required: the picture without the object is drawn from a description of its place",
    )


Limit = Annotated[float, Field(ge=-1e6, le=1e6)]


class Bounds(Section):
    """Limits of one metric. A value outside rejects the candidate."""

    min: Limit | None = None
    max: Limit | None = None


def _bounds(value: object) -> object:
    """Read bounds. A bare number is a lower bound; a mapping without min and max is an error."""
    if isinstance(value, Mapping) and all(limit is None for limit in value.values()):
        raise ValueError("state a number, or min, max or both")
    return {"min": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


def _some_value_fits(bounds: Bounds) -> Bounds:
    if bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
        raise ValueError(f"min = {bounds.min:g} is above max = {bounds.max:g}: nothing could pass")
    return bounds


Threshold = Annotated[Bounds, BeforeValidator(_bounds), AfterValidator(_some_value_fits)]


class Inverse(Section):
    """The pair backwards, from Tar to I: its task and its instruction."""

    index: int = Field(ge=0, le=MOST_INDEX, description="TI of the backward pair")
    instruction: str = Field(description=f"with slots: {', '.join(f'{{{slot}}}' for slot in SLOTS)}")
    caption: str | None = Field(None, description="caption of Tar if the output caption describes I as well")

    @model_validator(mode="after")
    def _known_slots(self) -> Self:
        for key, template in (("instruction", self.instruction), ("caption", self.caption)):
            named = set(re.findall(r"{(.*?)}", template or ""))
            if template is not None and not (named and named <= set(SLOTS)):
                raise ValueError(f"{key!r} needs slots of {', '.join(SLOTS)}; it has {sorted(named)}")
        return self


class Task(Section):
    """One edit task (``prompts/README.md`` explains every key)."""

    name: str
    index: int = Field(ge=0, le=MOST_INDEX, description="TI of the published rows; never reused")
    family: Literal["region", "free-form", "vision"]
    definition: str
    verbs: Several[str] = Field(min_length=1)
    fields: Fields
    ground: Ground
    method: Method
    direction: Literal["forward", "reverse"] = "forward"
    region: RegionKind
    candidates: Several[Candidate] = ()
    inverse: Inverse | None = Field(None, description="None: the pair makes no sense backwards")
    composite: bool = Field(False, description="whether the outside is pasted from the anchor")
    metrics: Several[str] = ()
    thresholds: Mapping[str, Threshold] = {}
    exemplars: Several[Exemplar] = ()

    @property
    def drawn(self) -> bool:
        """Whether a diffusion model draws Tar."""
        return self.method in DRAWN

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.drawn and not self.candidates:
            raise ValueError(f"{self.method} needs at least one entry under 'candidates'")
        if self.method == "editor" and self.direction == "reverse":
            raise ValueError(
                "an editor draws Tar from I, so 'direction: reverse', which draws I last, is not for it"
            )
        if self.region == "background" and any(c.mask == "box" for c in self.candidates):
            raise ValueError("a box would freeze a rectangle of old background: use another mask policy")
        if self.ground == "none" and any(c.blend is not None for c in self.candidates):
            raise ValueError("'blend' follows the grounded object's words, but 'ground' is none")
        unknown = set(self.thresholds) - set(self.metrics)
        if unknown:
            raise ValueError(f"thresholds for {sorted(unknown)}, which are not under 'metrics'")
        return self


class Tasks(Mapping[str, Task]):
    """The tasks of a run, by name. ``known`` holds the names of all task files."""

    def __init__(self, tasks: Mapping[str, Task], known: Iterable[str] = ()) -> None:
        self._tasks = dict(tasks)
        self.known = frozenset({*tasks, *known})

    def of_method(self, method: Method) -> "Tasks":
        """The tasks of a method."""
        own = {name: task for name, task in self._tasks.items() if task.method == method}
        return Tasks(own, self.known)

    def check_known(self, names: Iterable[str], key: str) -> None:
        """Check the task names under a manifest key. They may include tasks that this run does not use.

        Raises:
            ValueError: there is no task of that name.
        """
        for name in names:
            if name not in self.known:
                raise ValueError(
                    f"{key}.{name}: there is no such task; tasks: {', '.join(sorted(self.known))}"
                )

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


class TaskError(ValueError):
    """A task file is missing or wrong. The message names the file and the key."""


def load_tasks(
    prompts: Path,
    exemplars: Path | None = None,
    names: list[str] | None = None,
    methods: Mapping[str, Method] | None = None,
) -> Tasks:
    """Read ``prompts/<task>.yaml``; exemplars come from ``exemplars/<task>.yaml`` if that folder is given.

    Args:
        prompts: the folder of task files (``stages.shipped`` finds this folder and the next).
        exemplars: a folder whose exemplars replace those in the task files.
        names: the tasks to read; None for all.
        methods: by task, a method that replaces the file's.

    Raises:
        TaskError: a task is unknown, or its file is wrong.
    """
    prompts, exemplars = resolve(prompts), None if exemplars is None else resolve(exemplars)
    try:
        known = sorted(Path(name).stem for name in os.listdir(prompts) if name.endswith(".yaml"))
    except (FileNotFoundError, NotADirectoryError):
        known = []
    except OSError as error:  # a pattern would find nothing in a folder that cannot be listed
        raise TaskError(
            f"{prompts} cannot be read: {error.strerror}: check the manifest key tasks.prompts"
        ) from error
    if not known:
        raise TaskError(f"no task files (*.yaml) in {prompts}: check the manifest key tasks.prompts")
    tasks = {}
    for name in known if names is None else names:
        if name not in known:
            raise TaskError(
                f"unknown task {name!r} in the manifest key tasks.mixture; known: {', '.join(known)}"
            )
        tasks[name] = _load_task(prompts / f"{name}.yaml", exemplars, (methods or {}).get(name))
    indices = [task.index for task in tasks.values()]
    if len(set(indices)) != len(indices):
        raise TaskError(f"two tasks in {prompts} share an index (TI): every task needs its own")
    return Tasks(tasks, known)


def _load_task(path: Path, exemplars: Path | None, method: Method | None) -> Task:
    content = _read(path)
    if method is not None:
        content["method"] = method
    if exemplars is not None:
        other = _read(exemplars / path.name)
        if set(other) != {"exemplars"}:
            raise TaskError(f"{exemplars / path.name} must hold the key 'exemplars' and no other")
        content |= other
    try:
        return Task.model_validate({**content, "name": path.stem})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(key_of(first, content))
        where = f"{path}: key {key!r}" if key else str(path)
        raise TaskError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        raise TaskError(f"{path} is missing") from error
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}") from error
    except YamlError as error:
        raise TaskError(f"{path} {error}") from error
    if not isinstance(content, dict):
        raise TaskError(f"{path} must hold a mapping")
    if "name" in content:
        raise TaskError(f"{path}: key 'name': a task has the name of its file; remove the key")
    return content
