"""A photograph as the input of an edit: any common format and colour space, in the size that the model draws.

The bytes are of strangers. What is not a whole picture of a known kind is an error with a short reason.
"""

import math
import warnings
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from stages.pictures.foreign import FORMATS, MAX_PIXELS

LEAST = 0.5
"""A crop with less than this share of the wanted height is rejected: enlarged further, it is blurred."""
_SRGB = ImageCms.createProfile("sRGB")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I")


class PhotographError(ValueError):
    """The picture cannot be used; the text is a rejection's reason.

    ``picture_kind`` (format or kind of pixels), ``picture_too_large`` (more than 80 megapixels),
    ``picture_broken`` or ``picture_too_small``.
    """


def open_photograph(data: bytes) -> Image.Image:
    """The bytes of a picture as it is seen: RGB of 8 bits in sRGB, turned as its camera says.

    A transparent picture lies on white, 16 bits are rounded to 8, an embedded colour profile is applied, and
    an animation gives its first frame.

    Raises:
        PhotographError: the picture cannot be used.
    """
    if not data.startswith(tuple(FORMATS)):
        raise PhotographError("picture_kind")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and of odd metadata
            with Image.open(BytesIO(data), formats=sorted(set(FORMATS.values()))) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise PhotographError("picture_too_large")
                image.load()
                return _as_seen(image)
    except PhotographError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotographError("picture_too_large") from error
    except Exception as error:  # Pillow's readers raise errors of many kinds for damaged bytes
        raise PhotographError("picture_broken") from error


def nearest_size(image: Image.Image, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size (height, width) whose proportion is nearest to the picture's; the first of equals."""
    own = math.log(image.height / image.width)
    return min(sizes, key=lambda size: abs(math.log(size[0] / size[1]) - own))


def fitted(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The largest middle part of the size's proportion, resized without distortion: uint8 RGB [H,W,3].

    Args:
        image: RGB.
        size: height and width in pixels.

    Raises:
        PhotographError: ``picture_too_small``.
    """
    height, width = size
    if min(image.height / height, image.width / width) < LEAST:
        raise PhotographError("picture_too_small")
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))


def shown(image: Image.Image, proportion: tuple[int, int], most: int) -> np.ndarray:
    """The part that :func:`fitted` takes, for someone to look at: uint8 RGB [H,W,3], never enlarged.

    Args:
        image: RGB.
        proportion: a height and a width.
        most: most pixels of the longer side.
    """
    height, width = proportion
    scale = min(image.height / height, image.width / width, most / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS))


def _as_seen(image: Image.Image) -> Image.Image:
    profile, turned = image.info.get("icc_profile"), _upright(image)
    if turned.mode in _SIXTEEN_BITS:
        return _eight_bits(turned).convert("RGB")
    if turned.mode in ("F", "LAB", "HSV"):
        raise PhotographError("picture_kind")
    if turned.has_transparency_data:
        seen = turned.convert("RGBA")
        colours = _in_srgb(seen.convert("RGB"), profile)
        white = Image.new("RGB", seen.size, "white")
        return Image.composite(colours, white, seen.getchannel("A"))
    if turned.mode not in ("L", "RGB", "CMYK"):
        turned = turned.convert("RGB")
    return _in_srgb(turned, profile)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data says nothing about the pixels
        return image.copy()


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise PhotographError("picture_kind")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB; a profile that is damaged, or of another kind of pixels, is left out."""
    if profile:
        try:
            own = ImageCms.ImageCmsProfile(BytesIO(profile))
            made = ImageCms.profileToProfile(image, own, _SRGB, outputMode="RGB")
            if made is not None:
                return made
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass
    return image.convert("RGB")
