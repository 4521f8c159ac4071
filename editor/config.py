"""The manifest of a training: one YAML file, read into frozen typed models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from editor.model.network import Guidance
from pipeline.errors import UserError
from pipeline.manifest.manifest import Folder, Place, apply_override
from pipeline.manifest.manifest_errors import explain
from pipeline.store.location import Location, locate
from stages.base import Weights
from stages.section import Section
from stages.strict_yaml import YamlError, read_yaml
from stages.tasks import TaskError, Tasks, load_tasks

Share = Annotated[float, Field(ge=0, le=1)]


class DataConfig(Section):
    """The pairs that the editor is trained on."""

    pairs: tuple[Place, ...] = Field(
        strict=False, min_length=1, description="runs, exports (--to datasets), folders of shards, or shards"
    )
    tasks: tuple[str, ...] | None = Field(
        None, strict=False, description="only rows of these tasks; None: all"
    )
    inverse: bool = Field(True, description="also train on the pairs backwards (T_inverse)")
    test_share: Share = Field(
        0.02, description="share of the captions that are held out; by the same hash as in editpairs export"
    )
    prompts: Folder = Field(
        Path("prompts"), description="the task files; their names and indices become the table's"
    )
    batch: int = Field(32, ge=1, le=4096, description="pictures encoded at once into cached latents")


class Dropout(Section):
    """Shares of the examples without a condition, for guidance (InstructPix2Pix, section 3.2.1)."""

    text: Share = 0.05
    image: Share = 0.05
    both: Share = 0.05


class TrainingConfig(Section):
    """The optimisation. The defaults are Emu Edit's."""

    steps: int = Field(48_000, ge=1, le=10**9)
    batch: int = Field(512, ge=1, le=10**6, description="examples a step, over all workers and accumulations")
    accumulate: int = Field(1, ge=1, le=10**5, description="forward passes a step on each worker")
    learning_rate: float = Field(2e-5, gt=0, le=1)
    warmup: int = Field(2_000, ge=0, le=10**9, description="steps of linear warm-up; then cosine decay")
    plateau: Share = Field(0.0, description="share of the steps after warm-up before the decay begins")
    floor: Share = Field(0.0, description="the last learning rate, as a share of learning_rate")
    conv_in_factor: float = Field(1.0, gt=0, le=1000, description="learning rate of conv_in, as a multiple")
    weight_decay: float = Field(0.01, ge=0, le=1)
    clip_norm: float = Field(1.0, gt=0, le=1e6)
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the averaged weights, which are the editor")
    noisy: float = Field(
        1.0, ge=0.1, le=10, description="exponent p of the time steps: t = 1 - u**p; above 1, more noise"
    )
    zero_terminal_snr: bool = Field(True, description="the last step is pure noise (needs v-prediction)")
    drop: Dropout = Dropout()
    text_encoder: bool = Field(False, description="train the text encoder too")
    new_words: bool = Field(
        False, description="give a token to each word of the instructions that the tokenizer splits"
    )
    task_embedding: bool = Field(True, description="False: all task vectors stay zero (Emu Edit's ablation)")
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    workers: int = Field(1, ge=1, le=100_000, description="processes; more than 1 run on Ray Train")
    gpus: bool = Field(False, description="a GPU for each worker of Ray Train")


class WatchConfig(Section):
    """What is written while training. Not part of what a resumed training must share."""

    log_every: int = Field(50, ge=1, le=10**9)
    checkpoint_every: int = Field(500, ge=1, le=10**9)
    samples_every: int = Field(2_000, ge=1, le=10**9)
    samples: int = Field(12, ge=0, le=1000, description="held-out edits in a contact sheet")


class GuidanceConfig(Section):
    """Guidance and steps of sampling; written into the editor as its defaults."""

    text: float = Field(5.0, ge=1, le=100)
    image: float = Field(1.5, ge=1, le=100)
    steps: int = Field(50, ge=1, le=1000)

    @property
    def guidance(self) -> Guidance:
        return Guidance(self.text, self.image, self.steps)


class EditorManifest(Section):
    """The description of a training."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="the training's folder")
    runs: Place = Field("runs", description="the folder of the training's folder")
    seed: int = Field(0, ge=0, le=2**63 - 1)
    base: Weights = Field(description="a text-to-image model to begin from, or an editor to train further")
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    sampling: GuidanceConfig = GuidanceConfig()
    watch: WatchConfig = WatchConfig()

    @property
    def folder(self) -> Location:
        return locate(self.runs) / self.name

    @property
    def tasks(self) -> Tasks:
        """The tasks of ``data.prompts``.

        Raises:
            UserError: a file is missing or invalid, or ``data.tasks`` names another task.
        """
        try:
            tasks = load_tasks(self.data.prompts)
            tasks.check_known(self.data.tasks or (), "data.tasks")
        except (TaskError, ValueError) as error:
            raise UserError(str(error)) from error
        return tasks


def read_editor_manifest(path: Path, overrides: Sequence[str] = ()) -> EditorManifest:
    """Read a training's manifest and apply ``key=value`` overrides.

    Raises:
        UserError: the file is missing or invalid; the message names every wrong key.
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
    return parse_editor_manifest(content, str(path))


def parse_editor_manifest(content: Mapping[str, object], source: str) -> EditorManifest:
    """Check the content of a manifest.

    Raises:
        UserError: a key is wrong or missing; the message names every one.
    """
    try:
        return EditorManifest.model_validate(content)
    except ValidationError as error:
        lines = explain(error, content, EditorManifest, ())
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from error
