"""Checks of the detector's files without loading the detector."""

from collections.abc import Iterator
from pathlib import Path

from stages.models.grounding import GroundingConfig
from stages.models.tokenizer_files import check_tokenizer
from stages.models.weight_files import (
    check_preprocessor,
    of_parts,
    of_transformers,
    problems_of,
    read_json,
)


def grounding_problems(config: GroundingConfig) -> Iterator[str]:
    """Problems in the manifest's section ``grounding``."""
    if config.library == "transformers":
        check = of_transformers("a GroundingDINO", ("GroundingDino",), check_preprocessor, check_tokenizer)
        yield from problems_of("grounding", config, check)
    else:
        yield from problems_of("grounding", config, _check_folder)


def _check_folder(folder: Path) -> None:
    of_parts("backbone", ("backbone.", "bert.", "transformer."))(folder)
    text_encoder = folder / "text_encoder"
    if "model_type" not in read_json(text_encoder / "config.json"):
        raise ValueError(f"{text_encoder / 'config.json'} names no model_type: it is no config of BERT")
    check_tokenizer(text_encoder)
