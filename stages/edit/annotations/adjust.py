"""Photographic adjustments of a whole picture, chosen by an instruction.

The instruction begins with a verb of ``prompts/adjust.yaml``, which names the operation. A word of the
instruction gives the strength. The filters are Pillow's.
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
    """An adjustment: ``verb`` is a key of :data:`OPERATIONS`, ``strength`` one of :data:`STRENGTHS`."""

    verb: str
    strength: str


Filter = Callable[[Image.Image, float], Image.Image]


def _enhanced(enhancer: type) -> Filter:
    return lambda image, factor: enhancer(image).enhance(factor)


def _blurred(image: Image.Image, share: float) -> Image.Image:
    """Gaussian blur; sigma is ``share`` of the shorter side."""
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
"""By verb: the filter, and its amount for each of :data:`STRENGTHS`: a factor; for the hue a fraction of the
circle; for the blur a fraction of the picture's shorter side."""


def adjustment(instruction: str) -> Adjustment:
    """Read the adjustment from an instruction.

    Raises:
        AnnotationError: adjustment_not_understood: the instruction begins with no known verb, or names no
            strength or several.
    """
    text = " ".join(instruction.casefold().split())
    verbs = [verb for verb in OPERATIONS if f"{text} ".startswith(f"{verb} ")]
    strengths = [strength for strength in STRENGTHS if strength in text.strip(".!").split()]
    if not verbs or len(strengths) != 1:
        raise AnnotationError("adjustment_not_understood")
    return Adjustment(verbs[0], strengths[0])


def adjust(image: np.ndarray, wanted: Adjustment) -> np.ndarray:
    """The adjusted picture. Input and output are uint8 [H,W,3]."""
    apply, amounts = OPERATIONS[wanted.verb]
    amount = amounts[STRENGTHS.index(wanted.strength)]
    return np.asarray(apply(Image.fromarray(image), amount))


def draw_adjusted(subject: Subject) -> np.ndarray:
    """The picture, adjusted as the instruction says.

    Raises:
        AnnotationError: adjustment_not_understood.
    """
    return adjust(subject.picture, adjustment(subject.instruction))
