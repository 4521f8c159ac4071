"""Pictures as bytes and arrays: lossless PNG in the parts, uint8 RGB arrays in the stages.

The bytes can be untrusted, for example from a shard of another person. Before decoding, the header is
checked: is it a kind of picture that editpairs writes, and how large is it?
"""

import struct

import cv2
import numpy as np

MAX_PIXELS = 4096 * 4096
"""Most pixels in a decoded picture. A PNG of a few kilobytes can claim, and fill, gigabytes of memory."""
_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 3]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
"""Colour types of a PNG."""
_CHUNKS = {b"IHDR", b"IDAT", b"IEND", b"cHRM", b"gAMA", b"pHYs", b"sBIT", b"sRGB", b"tEXt", b"tIME"}
"""Allowed PNG chunks.

Compressed texts and profiles are refused because they can be decompression bombs; animation,
transparency and orientation because readers would show different pixels.
"""
_MOST_CHUNKS = 64
"""Chunks that hold no pixels. libpng may print a warning for each, so a flood of them fills the terminal."""


def encode_png(image: np.ndarray) -> bytes:
    """uint8 RGB [h,w,3] or grey [h,w] to PNG bytes."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    ok, data = cv2.imencode(".png", pixels, _FAST)
    if not ok:
        raise ValueError(f"could not encode a picture of shape {image.shape}")
    return data.tobytes()


def decode_rgb(data: bytes | None) -> np.ndarray:
    """PNG bytes to uint8 RGB [h,w,3].

    Raises:
        ValueError: the bytes are damaged, or not a kind of picture that editpairs writes; see
            :func:`png_size`.
    """
    return cv2.cvtColor(_decode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def decode_grey(data: bytes | None) -> np.ndarray:
    """PNG bytes to uint8 grey [h,w]; raises the errors of :func:`decode_rgb`."""
    return _decode(data, cv2.IMREAD_GRAYSCALE)


def decode_mask(data: bytes | None) -> np.ndarray:
    """Grey PNG bytes to a mask, float32 [h,w] in [0,1]; raises the errors of :func:`decode_rgb`."""
    return decode_grey(data).astype(np.float32) / 255


def png_size(data: bytes | None) -> tuple[int, int]:
    """Height and width of a complete 8-bit RGB or grey PNG, without decoding it.

    Raises:
        ValueError: there are no bytes, the format or the kind of PNG is another, the bytes are cut short, or
            the picture has more than ``MAX_PIXELS`` pixels.
    """
    if not data:
        raise ValueError("there is no picture")
    if data[:8] != _SIGNATURE or data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("the picture is not a PNG")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if depth != 8 or colour not in (_GREY, _RGB):
        raise ValueError(
            f"the picture has {depth} bits and PNG's colour type {colour}, not 8-bit RGB or grey"
        )
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"the picture claims {width} x {height} pixels; {MAX_PIXELS} are allowed")
    _check_chunks(data)
    return height, width


def _check_chunks(data: bytes) -> None:
    at, kind, others = len(_SIGNATURE), b"", 0
    while kind != b"IEND" and at + 12 <= len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        if kind not in _CHUNKS:
            raise ValueError(f"the picture has a PNG chunk {kind!r}, which is not allowed in a plain picture")
        others += kind != b"IDAT"
        if others > _MOST_CHUNKS:
            raise ValueError(f"the picture has more than {_MOST_CHUNKS} PNG chunks besides its pixels")
        at += 12 + length
    if kind != b"IEND" or at != len(data):
        raise ValueError("the picture's bytes are cut short, or go on after its end")


def _decode(data: bytes | None, flags: int) -> np.ndarray:
    height, width = png_size(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # type: ignore[arg-type]
    except cv2.error as error:
        raise ValueError("the picture's bytes cannot be decoded") from error
    if image is None or image.shape[:2] != (height, width):
        raise ValueError("the picture's bytes cannot be decoded")
    return image
