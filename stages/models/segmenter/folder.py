"""Checks of the segmenter's files without loading the segmenter."""

from collections.abc import Iterator

from stages.models.segmenter import SegmenterWeights
from stages.models.weight_files import check_preprocessor, of_parts, of_transformers, problems_of


def segmenter_problems(weights: SegmenterWeights) -> Iterator[str]:
    """Problems in the manifest's section ``mask.segmenter``."""
    if weights.library == "transformers":
        check = of_transformers("a SAM", ("SamModel", "Sam2Model", "Sam2VideoModel"), check_preprocessor)
    else:
        check = of_parts("encoder", ("image_encoder.", "mask_decoder.", "prompt_encoder."))
    yield from problems_of("mask.segmenter", weights, check)
