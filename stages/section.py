"""A section of a user's YAML file as a frozen, typed model. Errors name the section's keys."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the manifest or of a task file. It is immutable, and unknown keys are errors.

    A number must be finite and a real number: text and booleans are refused. Every numeric field states its
    range (``ge`` or ``gt``, and ``le`` or ``lt``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    identity: ClassVar[bool] = True
    """Whether the section affects a stage's output and is therefore part of its fingerprint."""
    implied: ClassVar[Mapping[str, Any]] = {}
    """Fields that were added later, with the value that older runs imply.

    The fingerprint leaves out a field with this value, so that older runs keep their fingerprints."""
    digested: ClassVar[frozenset[str]] = frozenset()
    """Fields of which the fingerprint has one digest instead of all keys, and nothing if they are None."""


def key_of(error: Mapping[str, Any], content: Any) -> list[str]:
    """The keys, outermost first, that a pydantic error is about.

    The error's ``loc`` also contains the alternatives of a union; these are not keys of the file and are left
    out.
    """
    keys: list[str] = []
    for part in error["loc"]:
        if isinstance(content, Mapping):
            inside = part in content
        else:
            inside = isinstance(content, Sequence) and isinstance(part, int) and part < len(content)
        if not inside:
            break
        content = content[part]
        keys.append(str(part))
    if error["type"] == "missing":
        keys.append(str(error["loc"][-1]))
    return keys
