"""What a language model replied, and how its reply ended."""

from dataclasses import dataclass
from typing import Literal

Ending = Literal["stop", "truncated", "content_filter", "refused"]
"""``truncated``: the reply was longer than it was allowed to be. ``refused``: the model said that it will not
answer."""


@dataclass(frozen=True)
class Reply:
    """A turn of the model; ``text`` may be empty, and holds the words of a refusal."""

    text: str
    ending: Ending = "stop"
