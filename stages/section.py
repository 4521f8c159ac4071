"""A part of a file that people write, as a frozen typed model: what is wrong in it is named by its key."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the manifest or of a task file: immutable, unknown keys are errors.

    A number is a number: neither text nor a boolean, and finite. Whoever adds one gives it a range
    (``ge`` or ``gt``, and ``le`` or ``lt``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    identity: ClassVar[bool] = True
    """Whether the section decides a stage's output, and so is part of its fingerprint."""


def key_of(error: Mapping[str, Any], content: Any) -> list[str]:
    """The keys, outermost first, that lead to what one of pydantic's errors is about.

    Its ``loc`` also names the alternatives of a union, which no file has.
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
