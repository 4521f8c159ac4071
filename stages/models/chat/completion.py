"""The body of an HTTP answer, read as a chat completion: any JSON may come, and no field is believed.

Sources: OpenAI's API reference (chat completion object); what vLLM, OpenRouter, Mistral, Gemini and Text
Generation Inference send through the same interface.
"""

import json
import re
from typing import Any

from stages.models.chat.conversation import Ending, Reply

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
"""``finish_reason`` in lower case; every other one is an end like any."""
_ERROR_CODE = re.compile("[45][0-9][0-9]")
_SHOWN = 200
"""Characters of an unreadable body that are shown."""


class CompletionError(ValueError):
    """A body that cannot be read; the message says what is wrong with it."""


def read_completion(body: bytes) -> Reply:
    """The first choice of a chat completion. ``content`` may be a text or a list of parts.

    Raises:
        CompletionError: it is no JSON, or has not the shape of a completion.
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
    finish = _get(choice, "finish_reason")
    for told in [message, *(said if isinstance(said, list) else [])]:
        refusal = _get(told, "refusal")
        if isinstance(refusal, str) and refusal.strip():
            return Reply(refusal, "refused")
    return Reply(_text(said), _ENDINGS.get(finish.lower(), "stop") if isinstance(finish, str) else "stop")


def error_status(body: bytes) -> int | None:
    """The HTTP status that an error in the body of a successful answer should have had; None: no error.

    502 where the error names none.
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
    """What the body of a failed answer says: the error's own message, or its first characters."""
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
    """The errors that a body tells of: at its top, as itself, or in its choices."""
    choices = _get(content, "choices")
    found = [_get(content, "error")]
    found += [content] if _get(content, "object") == "error" else []
    for choice in choices if isinstance(choices, list) else []:
        found.append(_get(choice, "error") or (_get(choice, "finish_reason") == "error" and choice))
    return [error for error in found if error]


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise CompletionError("its content is no text")
    # Parts of other types are thoughts, pictures and calls.
    said = [part for part in content if _get(part, "type") in (None, "text", "output_text")]
    parts = [part if isinstance(part, str) else _get(part, "text") for part in said]
    if not all(isinstance(part, str) for part in parts):
        raise CompletionError("its content is no text")
    return "".join(parts)


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
