"""Perceptual hashes: similar pictures have hashes that differ in few bits."""

import imagehash
import numpy as np
from PIL import Image


def perceptual_hash(image: np.ndarray) -> int:
    """pHash (the signs of 64 low frequencies of a DCT, by the imagehash package) as a signed 64-bit integer.

    Args:
        image: uint8 [h,w,3].
    """
    bits = imagehash.phash(Image.fromarray(image)).hash
    return int(np.packbits(bits).view(">i8")[0])
