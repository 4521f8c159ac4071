"""Checks of a tokenizer: its files before a run, and its words once it is loaded.

transformers loads some tokenizers (CLIP's) also without their vocabulary. Every text then becomes the same
special tokens, and every score and picture is meaningless, without any error.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.models.weight_files import read_json

_WHOLE = "tokenizer.json"
"""The vocabulary, merges and rules of the library tokenizers in one file."""
_VOCABULARIES = (("vocab.txt",), ("vocab.json", "merges.txt"))
"""Files of older tokenizers, which must all exist; SentencePiece has ``*.model``."""
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")


def check_tokenizer(folder: Path, words: Any = None) -> None:
    """Check that a folder holds a readable tokenizer with its vocabulary.

    Args:
        words: number of words that the model knows; None: as in the folder's ``config.json``, if it says so.

    Raises:
        ValueError: a file is missing or damaged.
        OSError: a file cannot be read.
    """
    for name in _SETTINGS:
        if (folder / name).exists():
            read_json(folder / name)
    older = any(all((folder / name).is_file() for name in names) for names in _VOCABULARIES)
    if not (folder / _WHOLE).is_file():
        if not older and not any(folder.glob("*.model")):
            raise ValueError(f"{folder} has no vocabulary of a tokenizer: it has no {_WHOLE}")
        return
    if words is None and (folder / "config.json").is_file():
        words = words_of_model(read_json(folder / "config.json"))
    _check_whole(folder / _WHOLE, words)
    if not older and not (folder / _SETTINGS[0]).is_file():
        raise ValueError(f"{folder} has no {_SETTINGS[0]}")


def words_of_model(config: Mapping[str, Any]) -> Any:
    """The number of words that a model's configuration names; None if it names none."""
    inner = config.get("text_config")
    return config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)


def _check_whole(file: Path, words: Any) -> None:
    from tokenizers import Tokenizer  # a library of its own, without any model

    content = file.read_bytes()
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises bare exceptions
        raise ValueError(
            f"{file} is damaged, or not a tokenizer: {' '.join(str(error).split())[:200]}"
        ) from None
    own = tokenizer.get_vocab_size(with_added_tokens=False)
    if own == 0 or (isinstance(words, int) and own > words):
        raise ValueError(f"{file} is of another model: it has {own} words, the model {words}")


def require_words(tokenizer: Any, where: str) -> None:
    """Check a loaded tokenizer of transformers.

    Raises:
        OSError: it has special tokens alone; the message names ``where`` it is from.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens) + 1:
        raise OSError(f"{where} has no vocabulary: every text would be the same to it")
