"""Reading an HTTP body as a chat completion. A server can send any JSON, so every field is checked.

Sources: OpenAI's API reference (chat completion object), and the observed answers of vLLM, OpenRouter,
Mistral, Gemini and Text Generation Inference.
"""

import json
import re
from typing import Any

from stages.models.chat.conversation import Ending, Reply, Usage

_ENDINGS: dict[str, Ending] = {
    "length": "truncated",
    "max_tokens": "truncated",
    "max_output_tokens": "truncated",
    "model_length": "truncated",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "refusal": "refused",
}
"""``finish_reason`` in lower case. Every other value is a normal end."""
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
    choices = _get(content, "choices")
    if choices == []:
        raise CompletionError("its choices are empty")
    choice = choices[0] if isinstance(choices, list) else None
    message = _get(choice, "message")
    if not isinstance(message, dict):
        raise CompletionError("it has no message")
    said = message.get("content")
    finish, usage = _get(choice, "finish_reason"), _usage(content)
    for told in [message, *(said if isinstance(said, list) else [])]:
        refusal = _get(told, "refusal")
        if isinstance(refusal, str) and refusal.strip():
            return Reply(refusal, "refused", usage)
    ending = _ENDINGS.get(finish.lower(), "stop") if isinstance(finish, str) else "stop"
    return Reply(_text(said), ending, usage)


def error_status(body: bytes) -> int | None:
    """The HTTP status of an error inside the body of a successful answer; None without an error.

    502 if the error names no status.
    """
    if b"error" not in body:
        return None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
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
        told = _get(error, "message") if isinstance(error, dict) else error
        if isinstance(told, str) and told.strip():
            return told
    return excerpt(body)


def excerpt(body: bytes) -> str:
    """The beginning of a body, on one line."""
    text = body[: 4 * _SHOWN].decode(errors="replace")
    return " ".join(text.split())[:_SHOWN] or "(an empty body)"


def _errors(content: Any) -> list[Any]:
    """The errors in a body: a top-level error, the body itself, or errors in its choices."""
    choices = _get(content, "choices")
    found = [_get(content, "error")]
    found += [content] if _get(content, "object") == "error" else []
    for choice in choices if isinstance(choices, list) else []:
        found.append(_get(choice, "error") or (_get(choice, "finish_reason") == "error" and choice))
    return [error for error in found if error]


def _usage(content: Any) -> Usage:
    """The tokens that the server has counted; what it tells otherwise is left out."""
    counts = [_get(_get(content, "usage"), key) for key in ("prompt_tokens", "completion_tokens")]
    return Usage(*(count if type(count) is int and 0 <= count < 2**40 else None for count in counts))


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
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
