"""Files that come with editpairs, found from any working folder: task files, manifests, the toybox's data.

A relative path is first looked up in the working folder. If nothing is there and its first folder is one of
``FOLDERS``, it is looked up among the installed files. A shipped manifest therefore runs in an empty folder
as in a clone.
"""

import os
from pathlib import Path

FOLDERS = ("manifests", "prompts", "toybox")
_HOUSE = Path(__file__).parents[1]
_ROOTS = (_HOUSE, _HOUSE / "editpairs")
"""Parents of ``FOLDERS``: a clone has them beside its packages, a wheel inside ``editpairs``."""


def resolve(path: Path) -> Path:
    """Look up a path of a manifest or a command, with ``~`` expanded; unchanged if it is found nowhere.

    No written file depends on the result: locks keep paths as given, and fingerprints hash contents.
    """
    path = Path(os.path.expanduser(path))
    if path.is_absolute() or path.parts[:1] not in [(name,) for name in FOLDERS] or os.path.lexists(path):
        return path
    return next((root / path for root in _ROOTS if (root / path).exists()), path)


def manifest_names() -> list[str]:
    """Names of the shipped manifests, as accepted by ``editpairs generate``."""
    return sorted(path.stem for root in _ROOTS for path in (root / "manifests").glob("*.yaml"))
