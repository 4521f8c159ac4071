"""Reading pictures to edit. They can come from anyone, so size and format are checked before decoding."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import UserError
from stages.pictures.png import MAX_PIXELS

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def read_picture(file: str | os.PathLike[str]) -> np.ndarray:
    """A picture, uint8 RGB [H,W,3].

    Raises:
        UserError: the file is missing, is no picture, or is too large.
    """
    path = Path(file)
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{path}: {image.width} x {image.height} pixels are more than {MAX_PIXELS}")
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"there is no picture {path}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture of {', '.join(FORMATS)}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as a picture: {reason}") from error


def check_size(picture: np.ndarray, multiple: int, name: str) -> None:
    """Check that a picture fits the model as it is. It is never resized or cut.

    Raises:
        UserError: a side is no multiple of ``multiple``; the message names the nearest sizes.
    """
    height, width = picture.shape[:2]
    if height % multiple or width % multiple or not height or not width:
        lower, upper = (
            [max(1, side // multiple + more) * multiple for side in (width, height)] for more in (0, 1)
        )
        raise UserError(
            f"{name} has {width} x {height} pixels, and this editor needs multiples of {multiple}: "
            f"resize or crop it, for example to {lower[0]} x {lower[1]} or {upper[0]} x {upper[1]}"
        )
