"""Photographic adjustments of a whole picture, as an instruction asks for them.

The instruction begins with a verb of ``prompts/adjust.yaml``, which names the operation, and says how
strong it is; the filters themselves are Pillow's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from stages.edit.annotations.marks import Subject
from stages.written_text import AnnotationError

STRENGTHS = ("slightly", "moderately", "strongly")


@dataclass(frozen=True)
class Adjustment:
    """What is done: ``verb`` is a key of :data:`OPERATIONS`, ``strength`` one of :data:`STRENGTHS`."""

    verb: str
    strength: str


Filter = Callable[[Image.Image, float], Image.Image]


def _enhanced(enhancer: type) -> Filter:
    return lambda image, factor: enhancer(image).enhance(factor)


def _blurred(image: Image.Image, share: float) -> Image.Image:
    """Gaussian blur with a sigma of ``share`` of the shorter side."""
    return image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def _hue_shifted(image: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point(lambda level: (level + round(256 * turn)) % 256)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


OPERATIONS: dict[str, tuple[Filter, tuple[float, float, float]]] = {
    "brighten": (_enhanced(ImageEnhance.Brightness), (1.2, 1.45, 1.8)),
    "darken": (_enhanced(ImageEnhance.Brightness), (0.8, 0.6, 0.4)),
    "increase the contrast": (_enhanced(ImageEnhance.Contrast), (1.3, 1.7, 2.4)),
    "reduce the contrast": (_enhanced(ImageEnhance.Contrast), (0.75, 0.5, 0.3)),
    "increase the saturation": (_enhanced(ImageEnhance.Color), (1.4, 1.9, 2.8)),
    "reduce the saturation": (_enhanced(ImageEnhance.Color), (0.65, 0.35, 0.0)),
    "shift the hue": (_hue_shifted, (0.06, 0.15, 0.35)),
    "blur": (_blurred, (0.008, 0.016, 0.032)),
    "sharpen": (_enhanced(ImageEnhance.Sharpness), (2.0, 4.0, 8.0)),
}
"""By verb: the filter, and its amount for each of :data:`STRENGTHS` (a factor; of the hue a part of the
circle; of the blur a part of the picture)."""


def adjustment(instruction: str) -> Adjustment:
    """Read an instruction.

    Raises:
        AnnotationError: adjustment_not_understood: it begins with no known verb, or names none or
            several strengths.
    """
    text = " ".join(instruction.casefold().split())
    verbs = [verb for verb in OPERATIONS if f"{text} ".startswith(f"{verb} ")]
    strengths = [strength for strength in STRENGTHS if strength in text.strip(".!").split()]
    if not verbs or len(strengths) != 1:
        raise AnnotationError("adjustment_not_understood")
    return Adjustment(verbs[0], strengths[0])


def adjust(image: np.ndarray, wanted: Adjustment) -> np.ndarray:
    """The picture uint8 [H,W,3] after an adjustment, of the same shape and type."""
    apply, amounts = OPERATIONS[wanted.verb]
    amount = amounts[STRENGTHS.index(wanted.strength)]
    return np.asarray(apply(Image.fromarray(image), amount))


def draw_adjusted(subject: Subject) -> np.ndarray:
    """The adjustment that the instruction asks for.

    Raises:
        AnnotationError: adjustment_not_understood.
    """
    return adjust(subject.picture, adjustment(subject.instruction))
