"""Files to which JSON lines are appended. Each line ends with its own checksum."""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.store import files
from pipeline.store.location import Location, is_local, named

_CHECK = b', "check": "'


def sealed_line(content: Mapping[str, Any]) -> bytes:
    """One line of JSON. Its last key is a checksum of everything before that key."""
    body = json.dumps(content, sort_keys=True).encode()[:-1]
    return body + _CHECK + f'{zlib.crc32(body):08x}"}}\n'.encode()


def append_lines(path: Location, lines: bytes) -> None:
    """Append sealed lines. After a line cut short by a crash, a new line is started first."""
    with named(path):
        if is_local(path) and not _ends_with_newline(path):
            lines = b"\n" + lines  # in an object store a line is never cut short
        files.append(path, lines)


def sealed_lines(path: Location, start: int = 0) -> Iterator[tuple[int, bytes, bool]]:
    """Yield the end offset of each line, the line, and whether it matches its checksum."""
    try:
        with named(path), path.open("rb") as file:
            file.seek(start)
            for line in file:
                start += len(line)
                yield start, line, _is_whole(line)
    except FileNotFoundError:
        return


def _is_whole(line: bytes) -> bool:
    body, _, check = line.rpartition(_CHECK)
    return check == f'{zlib.crc32(body):08x}"}}\n'.encode()


def _ends_with_newline(path: Location) -> bool:
    """Whether a new line can follow; true for an empty or missing file."""
    try:
        with path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except FileNotFoundError:
        return True
