"""Example pairs of a new task: a folder of pictures before and after, or a data set in parquet.

before/bird.png  after/bird.png  instructions/bird.txt

An instruction of its own for each pair is best. Without its file, one instruction serves for all pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from editor.data.edit_sets import EditSet
from editor.data.pictures import FORMATS, check_size, read_picture
from pipeline.errors import UserError
from pipeline.store.location import exists, is_local, locate

MOST_PAIRS = 100
"""Most pairs that are used. With more, train the editor further."""
BEFORE, AFTER, INSTRUCTIONS = "before", "after", "instructions"


@dataclass(frozen=True)
class ExamplePair:
    """Pictures uint8 [H,W,3] of one size before and after an edit, and its instruction."""

    name: str
    before: np.ndarray
    after: np.ndarray
    instruction: str


def read_example_pairs(path: str, instruction: str | None, multiple: int) -> list[ExamplePair]:
    """Read at most ``MOST_PAIRS`` pairs.

    Args:
        path: a folder with ``before`` and ``after``, or parquet files of any data set with results.
        instruction: the instruction of pairs that have none of their own.
        multiple: sides must be multiples of this number of pixels.

    Raises:
        UserError: there are no pairs, or one cannot be used. The message names it.
    """
    location = locate(path)
    if not exists(location):
        raise UserError(f"there are no examples at {path}: name a folder with before/ and after/, or parquet")
    folder = Path(path) if is_local(location) else None
    pairs = (
        _of_folder(folder, instruction)
        if folder is not None and (folder / BEFORE).is_dir()
        else _of_parquet(path)
    )
    found: list[ExamplePair] = []
    for pair in pairs:
        check_size(pair.before, multiple, pair.name)
        if found and pair.before.shape != found[0].before.shape:
            raise UserError(f"{pair.name} differs in size from {found[0].name}: all pairs must have one size")
        found.append(pair)
        if len(found) == MOST_PAIRS:
            break
    if not found:
        raise UserError(f"{path} holds no pairs with a result")
    return found


def _of_folder(folder: Path, instruction: str | None) -> Iterator[ExamplePair]:
    files = _pictures(folder / BEFORE)
    after = {file.stem: file for file in _pictures(folder / AFTER)}
    for file in files:
        if file.stem not in after:
            raise UserError(f"{folder / AFTER} has no picture {file.stem}, which {folder / BEFORE} has")
        before, target = read_picture(file), read_picture(after[file.stem])
        if before.shape != target.shape:
            raise UserError(f"{file} and {after[file.stem]} differ in size")
        yield ExamplePair(str(file), before, target, _instruction(folder, file.stem, instruction))


def _pictures(folder: Path) -> Sequence[Path]:
    suffixes = {f".{kind.lower()}" for kind in FORMATS} | {".jpg", ".tif"}
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in suffixes)


def _instruction(folder: Path, name: str, instruction: str | None) -> str:
    file = folder / INSTRUCTIONS / f"{name}.txt"
    try:
        own = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    text = own or instruction or ""
    if not text.strip():
        raise UserError(f"{name} has no instruction: write {file}, or one for all pairs with --instruction")
    return text


def _of_parquet(path: str) -> Iterator[ExamplePair]:
    for edit in EditSet(path):
        if edit.after is not None:
            yield ExamplePair(f"row {edit.id}", edit.before, edit.after, edit.instruction)
