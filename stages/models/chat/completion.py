"""Reading an HTTP body as a chat completion. A server can send any JSON, so every field is checked.

Sources: OpenAI's API reference (chat completion object), and the observed answers of vLLM, OpenRouter,
Mistral, Gemini and Text Generation Inference.
"""

import json
import re
from typing import Any

from stages.models.chat.conversation import Ending, Reply, Usage

_ENDINGS: tuple[tuple[re.Pattern[str], Ending], ...] = (
    (re.compile("length|max_|token_limit|context_window|incomplete|exceed|truncat", re.I), "truncated"),
    (
        re.compile("filter|safety|recitation|prohibited|blocklist|spii|sensitive|guardrail", re.I),
        "content_filter",
    ),
    (re.compile("refus", re.I), "refused"),
)
"""What a ``finish_reason`` contains, and how such a reply ended. Every other value is a normal end."""
_TOLD_UNDER = ("message", "msg", "detail", "error_description", "title", "reason")
"""Keys under which servers put the text of an error."""
_ERROR_CODE = re.compile("[45][0-9][0-9]")
_SHOWN = 200
"""Characters shown of an unreadable body."""


class CompletionError(ValueError):
    """The body is not a chat completion. The message says why."""


def read_completion(body: bytes) -> Reply:
    """The first choice of a chat completion. ``content`` can be a text or a list of parts.

    Raises:
        CompletionError: the body is not JSON, or does not have the shape of a completion.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CompletionError(f"it is not JSON ({error})") from None
    choices = _choices(content)
    choice = choices[0] if choices else None
    message = _get(choice, "message")
    if not isinstance(message, dict):
        raise CompletionError("it has no message")
    said = message.get("content")
    finish, usage = _get(choice, "finish_reason"), _usage(content)
    for told in [message, *(said if isinstance(said, list) else [])]:
        refusal = _get(told, "refusal")
        if isinstance(refusal, str) and refusal.strip():
            return Reply(refusal, "refused", usage)
    return Reply(_text(said), _ending(finish), usage)


def error_status(body: bytes) -> int | None:
    """The HTTP status of an error inside the body of a successful answer; None without an error.

    A body without choices is an error, whatever it looks like: a server's own error object, the page of a
    proxy, nothing. 502, which is tried again, if no status is named.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return 502
    for error in _errors(content):
        codes = [error.get(key) for key in ("code", "status")] if isinstance(error, dict) else []
        named = [int(code) for code in map(str, codes) if _ERROR_CODE.fullmatch(code)]
        return named[0] if named else 502
    return None


def error_text(body: bytes) -> str:
    """The error message in the body of a failed answer, or the body's first characters."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return excerpt(body)
    for error in [*_errors(content), content]:
        for told in [error, *(_get(error, key) for key in _TOLD_UNDER)]:
            if isinstance(told, str) and told.strip():
                return told
    return excerpt(body)


def excerpt(body: bytes) -> str:
    """The beginning of a body, on one line."""
    text = body[: 4 * _SHOWN].decode(errors="replace")
    return " ".join(text.split())[:_SHOWN] or "(an empty body)"


def _errors(content: Any) -> list[Any]:
    """The errors in a body: top-level errors, errors in its choices, or a body without choices itself."""
    bodies = content if isinstance(content, list) else [content]  # Gemini wraps an error in a list
    found = [_get(body, "error") for body in bodies]
    for body in bodies:
        several = _get(body, "errors")
        found += several if isinstance(several, list) else [several]
    for choice in _choices(content):
        found.append(_get(choice, "error") or (_get(choice, "finish_reason") == "error" and choice))
    found = [error for error in found if error]
    return found if found or _choices(content) else [content]


def _choices(content: Any) -> list[Any]:
    choices = _get(content, "choices")
    return choices if isinstance(choices, list) else []


def _ending(finish: Any) -> Ending:
    found = (ending for form, ending in _ENDINGS if isinstance(finish, str) and form.search(finish))
    return next(found, "stop")


def _usage(content: Any) -> Usage:
    """The tokens that the server has counted; what it tells otherwise is left out."""
    counts = [_get(_get(content, "usage"), key) for key in ("prompt_tokens", "completion_tokens")]
    return Usage(*(count if type(count) is int and 0 <= count < 2**40 else None for count in counts))


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    content = [content] if isinstance(content, dict) else content
    if not isinstance(content, list):
        raise CompletionError("its content is no text")
    # Parts of other types are thoughts, pictures and calls, and are skipped.
    said = [part for part in content if _get(part, "type") in (None, "text", "output_text")]
    parts = [part if isinstance(part, str) else _get(part, "text") for part in said]
    if not all(isinstance(part, str) for part in parts):
        raise CompletionError("its content is no text")
    return "".join(parts)


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
