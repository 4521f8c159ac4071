"""The manifest's section ``captions``, and the types of paths in a manifest."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict

from pipeline.store.location import Location, is_local, locate
from stages.section import Section
from stages.shipped import resolve


def _folder(path: Path) -> Path:
    if any(ord(character) < 32 for character in str(path)):
        raise ValueError("a path cannot contain control characters")
    return Path(os.path.expanduser(path))


Place = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f]*$")]
"""A path, or the URL of an object store."""
Folder = Annotated[Path, Strict(False), AfterValidator(_folder)]


Column = Annotated[str, Field(min_length=1, max_length=200)]


class Captions(Section):
    """The manifest's section ``captions``."""

    file: Place = Field(
        description="parquet, jsonl, json, csv, tsv or txt (text also as .gz, .bz2, .zst), a folder of such "
        "files, or a pattern such as captions/*.csv; a path or a URL such as s3://bucket/file"
    )

    @property
    def location(self) -> Location:
        place = locate(self.file)
        return resolve(place) if is_local(place) else place

    column: str | None = Field(
        default="caption",
        description="not used for txt; null for pictures without captions, with a section describe",
    )
    keep: Annotated[tuple[Column, ...], Strict(False)] = Field(
        default=(), description="other columns, such as url, that travel to the published rows as JSON"
    )
    picture: Column | None = Field(
        default=None,
        description="the column of the rows' own pictures, which are then edited: a path below the captions' "
        "folder, or in parquet the bytes; by default pictures are drawn",
    )
    duplicates: Literal["drop", "keep"] = Field(default="drop", description="of captions that occur again")
