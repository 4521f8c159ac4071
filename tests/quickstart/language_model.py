"""A stand-in of the language model: it answers any question of instruct and shorten, by simple rules."""

import json
import re
from typing import Any

from tests.stages.chat_server import Handler, completion

WORD = re.compile(r"[a-z]{4,}")


def behave(handler: Handler, times: int) -> None:
    """Answer a request."""
    answer = reply(handler.body["messages"])
    usage = {"prompt_tokens": 700, "completion_tokens": 60, "total_tokens": 760}
    handler.reply(json.dumps({**completion(json.dumps(answer)), "usage": usage}).encode())


def reply(messages: list[dict[str, Any]]) -> dict[str, str]:
    """The answer to the last question; which texts it has, the example in the conversation shows."""
    asked = json.loads(messages[-1]["content"])
    caption = asked["caption"]
    if "words" in asked:
        return {"caption": " ".join(caption.split()[: min(30, int(asked["words"]))]).rstrip(".,:")}
    example = json.loads(messages[2]["content"])
    shown = json.loads(messages[1]["content"])["caption"]
    noun = next((word for word in reversed(WORD.findall(caption.casefold()))), "picture")
    same = example["output_caption"] == shown
    original = noun if example["original_object"] else ""
    if same:
        edit = example["edit"] if not original else f"{asked['verb']} the {noun}"
        return _answer(original, edit, "", caption)
    if not original and not example["edited_object"]:  # the whole picture changes
        return _answer("", example["edit"], "", f"{caption}, as another picture")
    if not original:
        return _answer("", f"{asked['verb']} a kite", "a kite", f"{caption} and a kite", "the sky")
    if example.get("surroundings"):  # it is taken away
        without = re.sub(rf"\b{noun}\b", "", caption, flags=re.IGNORECASE)
        return _answer(noun, f"{asked['verb']} the {noun}", noun, without, "the ground")
    changed = re.sub(rf"\b{noun}\b", f"green {noun}", caption, flags=re.IGNORECASE)
    return _answer(noun, f"{asked['verb']} the {noun} green", f"green {noun}", changed)


def _answer(original: str, edit: str, edited: str, caption: str, surroundings: str = "") -> dict[str, str]:
    return {
        "original_object": original,
        "edit": edit,
        "edited_object": edited,
        "output_caption": caption,
        "surroundings": surroundings,
    }
