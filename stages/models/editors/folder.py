"""Which pipelines of diffusers edit by instructions here, and checks of their folders."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from stages.models.diffusion.families.flux_files import PATCH
from stages.models.diffusion.memory import pixels_per_latent
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
    """Check the class of a pipeline. ``model`` begins the message.

    Raises:
        ValueError: it is none of PIPELINES.
    """
    if name not in PIPELINES:
        raise ValueError(f"{model} is a {name}; here {', '.join(PIPELINES)} edit by instructions")


def folder_problems(config: EditorConfig, sizes: Iterable[tuple[int, int] | None]) -> Iterator[str]:
    """Problems of the section ``edit.editor``, read from the model's files.

    Args:
        config: the section.
        sizes: height and width of the pictures; None: that of the model under ``diffusion``.
    """

    def check(folder: Path) -> None:
        check_class(read_json(folder / "model_index.json").get("_class_name"), config.model)
        read_json(folder / "vae" / "config.json")

    found = [*problems_of("edit.editor", config, check)]
    yield from found
    if found or config.path is None or not config.path.exists():
        return
    spatial = "InstructPix2Pix" in read_json(config.path / "model_index.json")["_class_name"]
    multiple = pixels_per_latent(read_json(config.path / "vae" / "config.json")) * (1 if spatial else PATCH)
    for size in sizes:
        if size is not None and (size[0] % multiple or size[1] % multiple):
            yield (
                f"{KEY}: {config.model} edits pictures whose sides are multiples of {multiple} pixels, not "
                f"{size[0]} x {size[1]}: change diffusion.height and width, or buckets"
            )
    if not spatial and config.image_guidance_scale is not None:
        yield (
            f"edit.editor.image_guidance_scale: {config.model} takes none, InstructPix2Pix does: take it out"
        )
