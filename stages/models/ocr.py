"""Reading text in a picture with RapidOCR. Its weights are part of its package."""

import math

import cv2
import numpy as np


class TextReader:
    """An OCR engine.

    Raises:
        ValueError: its package is not installed.
    """

    def __init__(self) -> None:
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ImportError as error:
            raise ValueError(
                "score.ocr: true needs the package rapidocr-onnxruntime: pip install 'editpairs[ocr]'"
            ) from error
        self.engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def read(self, image: np.ndarray) -> str:
        """The lines of text in a picture uint8 RGB [h,w,3], from top to bottom, joined by spaces."""
        lines, _ = self.engine(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return " ".join(text for _, text, _ in lines or ())

    def compare(self, image: np.ndarray, box: np.ndarray, wanted: str) -> float:
        """Similarity in [0,1] between the text in a box (x0, y0, x1, y1 in pixels) and ``wanted``."""
        height, width = image.shape[:2]
        x0, y0 = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
        x1, y1 = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
        return likeness(self.read(image[y0:y1, x0:x1]), wanted)


def likeness(read: str, wanted: str) -> float:
    """1 - character error rate (torchmetrics), at least 0. Case and white space are ignored.

    If ``wanted`` is empty: 1 if no text was read, else 0.
    """
    from torchmetrics.functional.text import char_error_rate

    found, expected = ("".join(text.split()).casefold() for text in (read, wanted))
    if not expected:
        return float(not found)
    return max(0.0, 1 - float(char_error_rate(found, expected)))
