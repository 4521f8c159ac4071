"""Pictures as bytes and arrays: lossless PNG in the parts, uint8 RGB arrays in the stages."""

import cv2
import numpy as np

_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 3]


def encode_png(image: np.ndarray) -> bytes:
    """uint8 RGB [h,w,3] or grey [h,w] to PNG bytes."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    ok, data = cv2.imencode(".png", pixels, _FAST)
    if not ok:
        raise ValueError(f"could not encode a picture of shape {image.shape}")
    return data.tobytes()


def decode_rgb(data: bytes) -> np.ndarray:
    """PNG bytes to uint8 RGB [h,w,3]."""
    return cv2.cvtColor(_decode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def decode_grey(data: bytes) -> np.ndarray:
    """PNG bytes to uint8 grey [h,w]."""
    return _decode(data, cv2.IMREAD_GRAYSCALE)


def decode_mask(data: bytes) -> np.ndarray:
    """Grey PNG bytes to a mask, float32 [h,w] in [0,1]."""
    return decode_grey(data).astype(np.float32) / 255


def _decode(data: bytes, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("the picture's bytes cannot be decoded")
    return image
