"""Painted tasks on real photographs, through the source and edit stages: a contact sheet to look at.

    pip download --no-deps scikit-image; unzip scikit_image-*.whl 'skimage/data/*'
    python -m toybox.studies.real_photographs skimage/data --sheet sheet.png

The photographs are of packages: scikit-image (a folder to be named), scikit-learn and matplotlib. Boxes are
by hand and masks by OpenCV's GrabCut, in the place of a detector and a segmenter that know such objects.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pyarrow as pa
import sklearn

from pipeline.manifest.manifest import read_manifest
from pipeline.views.contact_sheet import draw
from pipeline.views.pairs import Pair
from stages import STAGES
from stages.edit.config import EditConfig
from stages.edit.stage import EditPhotographs
from stages.pictures.png import decode_rgb, encode_png
from stages.source.photographs import Photographs
from stages.source.stage import SourceConfig
from stages.tasks import load_tasks

ROOT = Path(__file__).parents[2]
SIZES = ((512, 512), (480, 640), (432, 640), (640, 512))
TASKS = ("detect", "segment", "sketch", "adjust", "text")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Photograph:
    """A file, its edit, and the object's box x0, y0, x1, y1 in fractions of the fitted picture."""

    file: str
    task: str
    instruction: str
    box: Box = (0.1, 0.1, 0.9, 0.9)
    edited_object: str = ""


PHOTOGRAPHS = (
    Photograph("astronaut.png", "detect", "detect the black helmet", (0.54, 0.66, 0.99, 1.0)),
    Photograph("camera.png", "sketch", "turn the picture into a sketch"),
    Photograph("chelsea.png", "adjust", "increase the saturation strongly"),
    Photograph("coffee.png", "segment", "segment the cup", (0.27, 0.02, 0.72, 0.8)),
    Photograph("coins.png", "detect", "detect the largest coin", (0.79, 0.49, 0.99, 0.73)),
    Photograph("motorcycle_left.png", "segment", "segment the motorcycle", (0.09, 0.2, 0.94, 0.92)),
    Photograph("rocket.jpg", "text", 'write "LIFT-OFF" in the sky', (0.08, 0.08, 0.44, 0.3), '"LIFT-OFF"'),
    Photograph("retina.jpg", "adjust", "increase the contrast strongly"),
    Photograph("china.jpg", "detect", "detect the pagoda", (0.16, 0.06, 0.62, 0.84)),
    Photograph("flower.jpg", "segment", "segment the flower", (0.25, 0.1, 0.71, 0.74)),
    Photograph("grace_hopper.jpg", "sketch", "turn the picture into a sketch"),
    Photograph("horse.png", "detect", "detect the horse", (0.02, 0.0, 0.99, 0.98)),
    Photograph("page.png", "sketch", "turn the picture into a sketch"),
)
"""Grey, transparent, upright and small ones among them; the last is too small for its size."""


def mask_of(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The object in a box x0, y0, x1, y1 in pixels, uint8 [h,w] of 0 or 255."""
    x0, y0, x1, y1 = box.round().astype(int).tolist()
    found = np.zeros(picture.shape[:2], np.uint8)
    background, object_ = (np.zeros((1, 65)) for _ in range(2))
    cv2.setRNGSeed(0)
    area = (x0, y0, x1 - x0, y1 - y0)
    cv2.grabCut(picture, found, area, background, object_, 4, cv2.GC_INIT_WITH_RECT)
    return ((found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)).astype(np.uint8) * 255


def folder_of(file: str, given: Path) -> Path:
    """The folder that holds a photograph."""
    of_packages = (
        Path(sklearn.__file__).parent / "datasets" / "images",
        Path(matplotlib.get_data_path()) / "sample_data",
    )
    return next((folder for folder in of_packages if (folder / file).exists()), given)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="scikit-image's data")
    parser.add_argument("--sheet", type=Path, required=True, help="a PNG to write")
    options = parser.parse_args()
    sizes = [list(size) for size in SIZES]
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", [f"diffusion.buckets={sizes}"], STAGES)
    tasks = load_tasks(ROOT / "prompts", names=list(TASKS))
    source = Photographs(manifest.section("source", SourceConfig), tasks)
    edit = EditPhotographs(manifest.section("edit", EditConfig).model_copy(update={"candidates": {}}), tasks)
    pairs = []
    for number, each in enumerate(PHOTOGRAPHS):
        data = (folder_of(each.file, options.folder) / each.file).read_bytes()
        row = {
            "id": each.file,
            "task": each.task,
            "seed": number,
            "caption": "a picture",
            "output_caption": "a picture",
            "surroundings": "",
            "instruction": each.instruction,
            "edited_object": each.edited_object,
            "original_object": "",
            "picture_bytes": data,
            "picture_flaw": "",
        }
        (made,) = source(pa.Table.from_pylist([row])).to_pylist()
        if made["status"] == "kept":
            picture = decode_rgb(made["source_image"])
            height, width = picture.shape[:2]
            box = np.array(each.box) * [width, height, width, height]
            mask = encode_png(mask_of(picture, box))
            names = ("precise_mask", "smooth_mask", "soft_mask")
            columns = {**dict.fromkeys(names, mask), "boxes": [box.tolist()], **made}
            (edited,) = edit(pa.Table.from_pylist([{**row, **columns}])).to_pylist()
            made |= edited
        print(f"{each.file:20s} {each.task:8s} {made['status']} {made['reason']}")
        if made["status"] != "kept":
            continue
        unused = each.task in ("sketch", "adjust")
        pairs.append(
            Pair(
                id=each.file,
                task=each.task,
                instruction=each.instruction,
                input_png=made["anchor"],
                target_png=made["candidates"][0]["image"],
                mask_png=encode_png(np.zeros_like(picture[..., 0])) if unused else mask,
                input_caption="",
                output_caption="",
                scores={},
            )
        )
    options.sheet.write_bytes(draw(pairs))


if __name__ == "__main__":
    main()
