"""Errors in a manifest, one line per key, named by the keys that the user wrote."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from stages.section import key_of

MOST_LINES = 20
"""Most errors shown. A manifest with more wrong keys is probably another kind of file."""
MOST_SHOWN = 80
"""Characters of a key or a value shown in an error."""


def explain(
    error: ValidationError, content: Mapping[str, Any], model: type[BaseModel], shared: Iterable[str]
) -> list[str]:
    """One line per wrong key. For a union type, only the first alternative's error is shown."""
    wrong: dict[str, Mapping[str, Any]] = {}
    for each in error.errors(include_url=False, include_context=False):
        if (
            each["type"] == "default_factory_not_called"
        ):  # another key, which has an error of its own, decides
            continue
        key = _dotted(key_of(each, content), shared)
        # An error about a whole section has no key of its own, so every such error is shown.
        wrong.setdefault(key if each["type"] != "value_error" else f"{key} {each['msg']}", each)
    lines = [_explain(each, key_of(each, content), model, shared) for each in [*wrong.values()][:MOST_LINES]]
    more = len(wrong) - len(lines)
    return [*lines, f"and {more} more keys are wrong"] if more else lines


def _explain(
    error: Mapping[str, Any], location: Sequence[str], model: type[BaseModel], shared: Iterable[str]
) -> str:
    """One line about one wrong key."""
    key = _dotted(location, shared)
    if error["type"] == "extra_forbidden":
        siblings = _known_keys(model, location[:-1]) + (list(shared) if len(location) == 1 else [])
        last = location[-1][:MOST_SHOWN]
        near = difflib.get_close_matches(last, siblings, n=1, cutoff=0)
        hint = f"; did you mean {_dotted([*location[:-1], *near], shared)!r}?" if near else ""
        return f"unknown key {key[:MOST_SHOWN]!r}{hint}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "string_type":
        reason += ": put it in quotes"
    value = "" if error["type"] == "value_error" else f", not {str(error['input'])[:MOST_SHOWN]!r}"
    if not key or reason.startswith(f"{key}."):
        return reason
    return f"{key}: {reason}{value}"


def _dotted(location: Sequence[str], shared: Iterable[str]) -> str:
    """A key as the manifest writes it: the key of a shared section carries no stage name."""
    return ".".join(location[1:] if len(location) > 1 and location[1] in shared else location)


def _known_keys(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The keys of the section at ``location``."""
    for part in location:
        if part in model.model_fields:
            inner = _models_in(model.model_fields[part].annotation)
            if not inner:
                return []
            model = inner[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
