"""An export's folder, read back before it is published: its card, and whether all of its files are there."""

import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.exports import SIDES, Side
from pipeline.shown import DataTable, plain_table
from pipeline.store.location import Location, exists, is_local
from pipeline.store.sealed import opened

CARD = "README.md"
_DATA = re.compile(r"(?P<folder>(?:[a-z]+/)?)(?P<side>train|test)-\*\.(?P<suffix>parquet|tar)")
"""A pattern of data files as our cards have it. No other is believed: it says what is replaced on the Hub."""
_NUMBERED = re.compile(r".*-(\d{5})-of-(\d{5})\.[a-z]+")


@dataclass(frozen=True)
class Files:
    """The files of one side: names relative to the folder, with their rows and bytes."""

    names: list[str]
    rows: int
    size: int


@dataclass(frozen=True)
class ExportFolder:
    """A folder that ``editpairs export`` wrote."""

    root: Path
    licence: str
    sides: Mapping[Side, Files]
    place: str
    """Pattern of the data files of any side: ``data/{side}-*.parquet``."""

    @property
    def names(self) -> list[str]:
        """Every file to publish, the card first."""
        return [CARD, *(name for files in self.sides.values() for name in files.names)]

    @property
    def patterns(self) -> list[str]:
        """The data files that this export has or an earlier one may have had."""
        return [self.place.format(side=side) for side in SIDES]

    def table(self) -> DataTable:
        """Files, rows and megabytes of each side."""
        table = plain_table("split", "files", "rows", "MB")
        for side, files in self.sides.items():
            table.add_row(side, str(len(files.names)), str(files.rows), f"{files.size / 1e6:.1f}")
        return table


def read_export(folder: Location) -> ExportFolder:
    """Read an export's card, and check that every data file is there and can be opened.

    Raises:
        OSError: the folder cannot be read.
        UserError: it is no export of editpairs, lies in an object store, or a file is missing or damaged.
    """
    if not is_local(folder):
        raise UserError(f"{folder}: the folder to publish is a local one: give export a local --out")
    if exists(folder / "manifest.lock.yaml"):
        raise UserError(
            f"{folder} is a run: export it first (editpairs export {folder} --to datasets --out FOLDER)"
        )
    header = _header(folder)
    places, sides = set(), {}
    for pattern in _patterns(folder, header):
        match = _DATA.fullmatch(pattern)
        if match is None:
            raise UserError(
                f"{folder / CARD} names data files {pattern!r}: it is no card of editpairs export"
            )
        side: Side = "train" if match["side"] == "train" else "test"
        places.add(f"{match['folder']}{{side}}-*.{match['suffix']}")
        sides[side] = _files(folder, pattern)
    if len(places) != 1:
        raise UserError(f"{folder / CARD} names no data files, or files of several kinds: export again")
    return ExportFolder(folder, str(header.get("license", "other")), sides, places.pop())


def _header(folder: Path) -> Mapping[str, Any]:
    """The front matter of the folder's card."""
    from huggingface_hub import DatasetCard
    from yaml import YAMLError

    try:
        return dict(DatasetCard((folder / CARD).read_text(encoding="utf-8")).data.to_dict())
    except FileNotFoundError:
        raise UserError(f"{folder} has no {CARD}: name a folder that editpairs export wrote") from None
    except (ValueError, TypeError, YAMLError, RecursionError) as error:
        raise UserError(f"{folder / CARD} cannot be read: {error}; export again") from error


def _patterns(folder: Path, header: Mapping[str, Any]) -> list[str]:
    try:
        return [str(files["path"]) for files in header["configs"][0]["data_files"]]
    except (KeyError, IndexError, TypeError):
        raise UserError(f"{folder / CARD} names no data files: it is no card of editpairs export") from None


def _files(folder: Path, pattern: str) -> Files:
    """The files of a pattern, counted.

    Raises:
        UserError: one is missing, damaged, or left from another export.
    """
    paths = sorted(folder.glob(pattern))
    numbers = [match.groups() if (match := _NUMBERED.fullmatch(path.name)) else ("", "") for path in paths]
    if numbers != [(f"{k:05d}", f"{len(paths):05d}") for k in range(len(paths))] or not paths:
        found = ", ".join(path.name for path in paths[:5]) or "none"
        raise UserError(f"{folder / pattern}: the files are not the whole of one export (found {found})")
    rows = sum(map(_rows, paths))
    return Files(
        [path.relative_to(folder).as_posix() for path in paths], rows, sum(p.stat().st_size for p in paths)
    )


def _rows(path: Path) -> int:
    """The number of pairs in a parquet file or a tar, from footer or headers.

    Raises:
        UserError: the file is damaged.
    """
    if path.suffix == ".parquet":
        with opened(path) as file:
            return int(file.metadata.num_rows)
    try:
        with tarfile.open(path) as tar:
            return sum(name.endswith(".json") for name in tar.getnames())
    except tarfile.TarError as error:
        raise UserError(f"{path} cannot be read: {error}; export again") from error
