"""Evaluation sets in parquet files: which columns hold captions and pictures, and reading them in a stream.

Known sets and their columns: the Emu Edit test set (``input_caption``, ``output_caption``, ``image``),
MagicBrush (``source_img``, ``target_img``; ``mask_img`` is not compared), GEdit (``input_image``,
``input_image_raw``). Other sets are read by the same rules.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.store.location import Location, arrow_source, exists, is_local, list_folder, locate, named
from stages.pictures.foreign import looks_like_picture

CAPTIONS = {"prompt", "text", "original_prompt", "edited_prompt", "source_prompt", "target_prompt"}
"""Names of caption columns, besides those that contain ``caption``."""
_BATCH = 16
"""Rows read at once. A row can hold several pictures of megabytes."""


@dataclass(frozen=True)
class EvaluationSet:
    """One or several parquet files with the same columns."""

    name: str
    files: tuple[Location, ...]
    captions: tuple[str, ...]
    """Columns of texts, or of lists of texts."""
    pictures: tuple[str, ...]
    """Columns of bytes, or of structs with ``bytes``."""
    rows: int


@dataclass(frozen=True)
class Row:
    """A row of a set: its texts, and its pictures as they are in the file; None for a missing one."""

    file: str
    number: int
    """Counted from 0 within the file."""
    captions: tuple[str, ...]
    pictures: tuple[bytes | None, ...]


def open_sets(paths: Iterable[str]) -> list[EvaluationSet]:
    """The evaluation sets at some paths: each is a file, or a folder whose parquet files are one set.

    Raises:
        UserError: a path does not exist, is no parquet file, or has neither captions nor pictures; or two
            sets have one name.
    """
    given = list(paths)
    sets = [_open(path) for path in given]
    names = [each.name for each in sets]
    for each, path in zip(sets, given, strict=True):
        if names.count(each.name) > 1:
            raise UserError(f"--against {path}: two sets are named {each.name}: give them names of their own")
    return sets


def read_set(each: EvaluationSet) -> Iterator[Row]:
    """The rows of a set, a few at a time.

    Raises:
        UserError: a file cannot be read.
    """
    for file in each.files:
        with _opened(file) as parquet:
            number = 0
            columns = [*each.captions, *each.pictures]
            for batch in parquet.iter_batches(batch_size=_BATCH, columns=columns):
                for record in batch.to_pylist():
                    captions = tuple(_texts(record[name] for name in each.captions))
                    pictures = tuple(_bytes(record[name]) for name in each.pictures)
                    yield Row(file.name, number, captions, pictures)
                    number += 1


def _open(path: str) -> EvaluationSet:
    location = locate(path)
    with named(location):
        if not exists(location):
            raise UserError(f"--against {path}: there is no file and no folder")
        files = [location]
        if location.is_dir():
            files = sorted(_parquet_below(location), key=str)
    if not files:
        raise UserError(f"--against {path}: the folder holds no parquet files")
    captions, pictures = _columns(files[0])
    if not captions and not pictures:
        names = ", ".join(map(repr, _schema(files[0]).names))[:500]
        raise UserError(f"--against {path}: no column holds captions or pictures; it has {names}")
    for file in files[1:]:
        if missing := {*captions, *pictures} - set(_schema(file).names):
            raise UserError(
                f"--against {path}: {file.name} has no column {min(missing)}, as {files[0].name} has"
            )
    name = location.name if location.is_dir() else location.stem
    return EvaluationSet(name, tuple(files), captions, pictures, sum(map(_rows, files)))


def _parquet_below(folder: Location) -> Iterator[Location]:
    """The parquet files in a folder and its folders. Hidden ones are left out, and links to folders.

    ``glob`` of an object store would take a folder's name as a pattern too.
    """
    for name, is_folder in list_folder(folder).items():
        path = folder / name
        if name.startswith(".") or (is_folder and is_local(path) and path.is_symlink()):
            continue
        if is_folder:
            yield from _parquet_below(path)
        elif name.endswith(".parquet"):
            yield path


def _columns(file: Location) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the columns with captions and with pictures."""
    with _opened(file) as parquet:
        schema = parquet.schema_arrow
        plain = [field.name for field in schema if _is_binary(field.type)]
        first = next(parquet.iter_batches(batch_size=_BATCH, columns=plain), None) if plain else None
        shown = {name for name in plain if first is not None and _shows(first[name])}
    pictures = [
        field.name
        for field in schema
        if (_is_picture_struct(field.type) or field.name in shown) and "mask" not in field.name.lower()
    ]
    return tuple(field.name for field in schema if _is_caption(field)), tuple(pictures)


def _shows(column: pa.Array) -> bool:
    return any(value and looks_like_picture(value) for value in column.to_pylist())


def _is_caption(field: pa.Field) -> bool:
    name, kind = field.name.lower(), field.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(text) and ("caption" in name or name in CAPTIONS)


def _is_picture_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(f.name == "bytes" and _is_binary(f.type) for f in kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from (text for text in (value if isinstance(value, list) else [value]) if text)


def _bytes(value: Any) -> bytes | None:
    """The bytes of a picture. A path in the file is never opened: it could be any file of this machine."""
    return value.get("bytes") if isinstance(value, dict) else value


def _rows(file: Location) -> int:
    with _opened(file) as parquet:
        return int(parquet.metadata.num_rows)


def _schema(file: Location) -> pa.Schema:
    with _opened(file) as parquet:
        return parquet.schema_arrow


@contextmanager
def _opened(file: Location) -> Iterator[pq.ParquetFile]:
    """A parquet file that another program has written.

    Raises:
        UserError: it cannot be read, here or inside the block.
    """
    try:
        with named(file), pq.ParquetFile(arrow_source(file), pre_buffer=False) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--against {file}: it cannot be read as parquet: {reason}") from error
