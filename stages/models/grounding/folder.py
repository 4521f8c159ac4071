"""Checks of the detector's files without loading the detector."""

from collections.abc import Iterator
from pathlib import Path

from stages.models.grounding import GroundingConfig
from stages.models.weight_files import (
    PREPROCESSOR,
    TOKENIZER,
    of_parts,
    of_transformers,
    problems_of,
    read_json,
)


def grounding_problems(config: GroundingConfig) -> Iterator[str]:
    """Problems in the manifest's section ``grounding``."""
    if config.library == "transformers":
        check = of_transformers("a GroundingDINO", ("GroundingDino",), PREPROCESSOR)
        yield from problems_of("grounding", config, check)
    else:
        yield from problems_of("grounding", config, _check_folder)


def _check_folder(folder: Path) -> None:
    of_parts("backbone", ("backbone.", "bert.", "transformer."))(folder)
    text_encoder = folder / "text_encoder"
    read_json(text_encoder / "config.json")
    if not any((text_encoder / file).is_file() for file in (*TOKENIZER, "vocab.txt")):
        raise ValueError(f"{text_encoder} has no files of a tokenizer")
