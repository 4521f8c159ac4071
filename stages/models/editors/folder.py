"""Which pipelines of diffusers edit by instructions here, and checks of their folders."""

from collections.abc import Iterator
from pathlib import Path

from stages.models.editors import EditorConfig
from stages.models.weight_files import problems_of, read_json

KEY = "edit.editor.model"
PIPELINES = (
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
    "FluxKontextPipeline",
    "QwenImageEditPipeline",
    "QwenImageEditPlusPipeline",
)
TASKS_FOLDER = "tasks"
"""The folder of task vectors, by which an editor trained with ``editpairs train`` is known."""


def check_class(name: object, model: str) -> None:
    """Check the class of a pipeline.

    Raises:
        ValueError: it is none of PIPELINES.
    """
    if name not in PIPELINES:
        raise ValueError(f"{KEY}: {model} is a {name}; here {', '.join(PIPELINES)} edit by instructions")


def folder_problems(config: EditorConfig) -> Iterator[str]:
    """Problems of the section ``edit.editor``, read from the model's files."""

    def check(folder: Path) -> None:
        check_class(read_json(folder / "model_index.json").get("_class_name"), config.model)

    found = [*problems_of("edit.editor", config, check)]
    yield from found
    if found or config.path is None or not config.path.exists():
        return
    name = read_json(config.path / "model_index.json")["_class_name"]
    if "InstructPix2Pix" not in name and config.image_guidance_scale is not None:
        yield (
            f"edit.editor.image_guidance_scale: {config.model} takes none, InstructPix2Pix does: take it out"
        )
