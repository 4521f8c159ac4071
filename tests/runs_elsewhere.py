"""A run's folder as it looks on another machine, or when an earlier version has written it."""

import hashlib
from collections.abc import Callable

import yaml

from pipeline.manifest.lockfile import read_lock
from pipeline.store.location import Location


def rewrite_lock(path: Location, change: Callable[[dict], None]) -> None:
    """Change a lock's content in place, its checksum too."""
    content = read_lock(path)
    change(content)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
    first = path.read_bytes().partition(b": ")[0]
    digest = hashlib.blake2b(text, digest_size=16).hexdigest().encode()
    path.write_bytes(first + b": " + digest + b"\n" + text)
