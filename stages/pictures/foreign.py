"""Pictures of other data sets: any common format, from untrusted bytes."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

FORMATS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
"""Formats that are read, by their first bytes."""
MAX_PIXELS = 80_000_000
"""Most pixels of a picture, such as 10 000 x 8 000; Pillow warns of larger ones."""


def looks_like_picture(data: bytes) -> bool:
    """Whether bytes begin as a picture of a known format does."""
    return data.startswith(tuple(FORMATS))


def decode_foreign(data: bytes | None) -> np.ndarray:
    """The bytes of a picture as uint8 RGB [h,w,3], turned as its camera says.

    Raises:
        ValueError: there are no bytes, the format is unknown, the picture is too large, or it is damaged.
    """
    if not data:
        raise ValueError("there is no picture")
    if not looks_like_picture(data):
        raise ValueError("the bytes are no picture of a known format")
    try:
        with Image.open(BytesIO(data), formats=sorted(set(FORMATS.values()))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"the picture claims {image.width} x {image.height} pixels")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # Pillow's readers raise errors of many kinds for damaged bytes
        raise ValueError(f"the picture cannot be decoded: {error}") from error
