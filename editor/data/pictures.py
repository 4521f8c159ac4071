"""Reading pictures to edit. They can come from anyone, so size and format are checked before decoding."""

import os
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import UserError
from stages.pictures.png import MAX_PIXELS

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_DEEP = ("I", "F")
"""First letters of PIL's modes with more than 8 bits per channel, which a conversion would clip."""


def read_picture(file: str | os.PathLike[str]) -> np.ndarray:
    """A picture from a file, uint8 RGB [H,W,3].

    Raises:
        UserError: the file is missing, is no picture, or shows something that RGB cannot hold.
    """
    path = Path(file)
    try:
        with path.open("rb") as stream:
            return _decode(stream)
    except FileNotFoundError:
        raise UserError(f"there is no picture {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} {error}") from error


def decode_picture(content: bytes) -> np.ndarray:
    """A picture from the bytes of a file, uint8 RGB [H,W,3].

    Raises:
        ValueError: it is no picture, or shows something that RGB cannot hold. The message continues a
            sentence that begins with the picture's name.
    """
    return _decode(BytesIO(content))


def _decode(stream: IO[bytes]) -> np.ndarray:
    try:
        with Image.open(stream, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            if image.mode.startswith(_DEEP):
                raise ValueError("has more than 8 bits per channel: convert it to an 8-bit RGB picture")
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data and _some_transparent(upright):
                raise ValueError("has transparent pixels: put it on a background first")
            return np.array(upright.convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError(f"is no picture of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"cannot be decoded: {reason}") from error


def _some_transparent(image: Image.Image) -> bool:
    return bool(np.asarray(image.convert("RGBA"))[..., 3].min() < 255)


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
