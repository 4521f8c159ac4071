"""Which manifest a command means: a file, or the name of one that came with editpairs."""

import difflib
import os
from pathlib import Path

from pipeline.errors import UserError
from stages.shipped import manifest_names, resolve


def find_manifest(given: str | os.PathLike[str]) -> Path:
    """The file of a manifest.

    Args:
        given: a path, or the name of a file of ``manifests/`` without its suffix, such as ``toybox``.

    Raises:
        UserError: there is no such file; names the nearest ones.
    """
    text = os.fspath(given)
    path = resolve(Path(text))
    if path.is_file():
        return path
    named = resolve(Path("manifests", f"{text}.yaml"))
    if os.sep not in text and named.is_file():
        return named
    if path.exists():
        raise UserError(f"the manifest {text} is not a file: name a YAML file, or one of {_names()}")
    near = _near(text)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(
        f"there is no manifest {text} (looked in {Path.cwd()}): {hint}Name a YAML file, or one that comes "
        f"with editpairs: {_names()}"
    )


def _near(text: str) -> list[str]:
    """At most two names, or files beside the one that was meant, that are spelt nearly so."""
    path = Path(text)
    beside = {file.stem: str(file) for file in sorted(path.parent.glob("*.yaml"))}
    known = {**{name: name for name in manifest_names()}, **beside}
    return [known[name] for name in difflib.get_close_matches(path.stem, known, n=2)]


def _names() -> str:
    return ", ".join(manifest_names())
