"""Files that come with editpairs, found from any working folder: task files, manifests, the toybox's data.

A relative path means the working folder first. Where nothing lies there and its first folder is one of
``FOLDERS``, it means the files that were installed with the package, so that a shipped manifest runs in an
empty folder as it does in a clone.
"""

import os
from pathlib import Path

FOLDERS = ("manifests", "prompts", "toybox")
_HOUSE = Path(__file__).parents[1]
_ROOTS = (_HOUSE, _HOUSE / "editpairs")
"""A clone has the folders beside its packages; a wheel has what is no package within ``editpairs``."""


def resolve(path: Path) -> Path:
    """Where a path of a manifest or a command leads, ``~`` expanded; itself if nothing is there either.

    Nothing that is written depends on the answer: locks keep paths as they were given, and fingerprints
    hash contents.
    """
    path = Path(os.path.expanduser(path))
    if path.is_absolute() or path.parts[:1] not in [(name,) for name in FOLDERS] or os.path.lexists(path):
        return path
    return next((root / path for root in _ROOTS if (root / path).exists()), path)


def manifest_names() -> list[str]:
    """The manifests that come with editpairs, as ``editpairs generate`` takes their names."""
    return sorted(path.stem for root in _ROOTS for path in (root / "manifests").glob("*.yaml"))
