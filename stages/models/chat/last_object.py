"""The answer in a reply: its last complete JSON object with the expected keys, read as data.

Thoughts, drafts and code fences around it are ignored.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_THOUGHTS = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis"
_OPENS_THOUGHT = re.compile(
    rf"[<\[◁]([a-z]+:)?({_THOUGHTS})[>\]▷]|<\|begin_of_({_THOUGHTS})\|>|<\|channel\|>\s*analysis",
    re.IGNORECASE,
)
_CLOSES_THOUGHT = re.compile(
    rf"[<\[◁]/([a-z]+:)?({_THOUGHTS})[>\]▷]|<\|end_of_({_THOUGHTS})\|>|<\|channel\|>\s*final",
    re.IGNORECASE,
)
"""Marks of a thought by several families of models: ``<think>``, ``[THINK]``, ``<|channel|>analysis``."""
_OPENING = re.compile(r"\{(?=\s*[\"}])")
"""Possible beginning of a JSON object."""
_ATTEMPT_COST, _MAX_COST = 1_000, 5_000_000
"""Largest number of characters read in vain in one reply, and the cost added for each attempt.

Without a bound, a text with 100 000 opening braces would be read from each of them to its end."""


class AnswerError(ValueError):
    """The answer is unusable. The message is a short reason, which is counted."""


def last_object(
    text: str, key: str, is_whole: Callable[[Mapping[str, Any]], bool] = lambda content: True
) -> Mapping[str, Any]:
    """The last object with ``key`` that is whole; without a whole one, the last object with ``key``.

    Args:
        text: a reply.
        key: the key that makes an object an answer. An object without it is searched for one inside.
        is_whole: whether an object has everything that an answer needs.

    Raises:
        AnswerError: empty, not_json, missing_field.
    """
    if not text.strip():
        raise AnswerError("empty")
    objects = [part for whole in _objects(_without_thoughts(text)) for part in _with_key(whole, key)]
    if not objects:
        raise AnswerError("missing_field")
    return ([content for content in objects if is_whole(content)] or objects)[-1]


def _without_thoughts(text: str) -> str:
    """The text after the last complete thought, up to an incomplete one."""
    closings = list(_CLOSES_THOUGHT.finditer(text))
    text = text[closings[-1].end() :] if closings else text
    unended = _OPENS_THOUGHT.search(text)
    return text[: unended.start()] if unended else text


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The complete, outermost JSON objects in a text, in order."""
    decoder, position, cost, found = json.JSONDecoder(), 0, 0, False
    while opening := _OPENING.search(text, position):
        start = opening.start()
        position = start + 1
        cost += _ATTEMPT_COST
        if cost > _MAX_COST:
            raise AnswerError("not_json")
        try:
            content, position = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            cost += error.pos - start
        except (ValueError, RecursionError):  # thousands of digits, or thousands of levels
            cost += len(text) - start
        else:
            found = True
            yield content
    if not found:
        raise AnswerError("not_json")


def _with_key(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The object if it has the key; otherwise the objects inside it that have it, in order."""
    found: list[Mapping[str, Any]] = []
    waiting: list[Any] = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and key in value:
            found.append(value)
        elif isinstance(value, dict | list):
            waiting += reversed(list(value.values()) if isinstance(value, dict) else value)
    return found
