"""The judge's conversations: wording from a file, texts quoted as data, pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationError

from stages.models.chat.conversation import Message, Picture, quoted
from stages.section import Section, key_of
from stages.shipped import resolve
from stages.strict_yaml import YamlError, read_yaml

Form = Literal["marks", "consistency", "recaption"]
"""A kind of question: all marks; consistency alone, with the difference; another instruction."""
MARKS: dict[str, str] = {
    "instruction_following": "judge_instruction",
    "consistency": "judge_consistency",
    "quality": "judge_quality",
}
"""The metric of each mark, by its key in an answer."""
PROMPT = "prompts/judge/edit.yaml"
"""The wording that comes with editpairs."""
_KEYS: dict[Form, tuple[str, ...]] = {
    "marks": ("reason", *MARKS),
    "consistency": ("reason", "consistency"),
    "recaption": ("instruction", "output_caption"),
}


class Prompt(Section):
    """What the model is told: a system message per kind of question, and a legend of the difference."""

    marks: str
    difference: str
    consistency: str
    recaption: str


def read_prompt(given: Any) -> Any:
    """The wording in a file; anything else but a path is returned as it is.

    Raises:
        ValueError: the file is missing or wrong. The message names it.
    """
    if not isinstance(given, str):
        return given
    path = resolve(Path(given))
    try:
        content = read_yaml(path)
        return Prompt.model_validate(content)
    except OSError as error:
        raise ValueError(f"{given} cannot be read: {error.strerror or error}") from error
    except YamlError as error:
        raise ValueError(f"{given} {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(key_of(first, content))
        raise ValueError(f"{given}: {f'key {key!r}: ' if key else ''}{first['msg']}") from error


PromptFile = Annotated[Prompt, BeforeValidator(read_prompt)]
"""In a manifest the path of a file, in a lock file its content."""


@dataclass(frozen=True)
class Sight:
    """What the judge is shown of one candidate."""

    input_png: bytes
    target_png: bytes
    difference_png: bytes | None
    """:func:`stages.pictures.difference.outside_difference`; None if the edit has no outside."""
    kind: str
    """Name of the task."""
    instruction: str
    input_caption: str
    output_caption: str
    seed: int


def conversation(prompt: Prompt, form: Form, sight: Sight, difference: bool) -> list[Message]:
    """A question about a candidate.

    The texts come first and our own words last, so that no text has the last word.

    Args:
        difference: whether the difference is shown too, if there is one.
    """
    texts = {
        "instruction": sight.instruction,
        "caption_of_image_1": sight.input_caption,
        "caption_of_image_2": sight.output_caption,
    }
    if form == "recaption":
        texts = {"kind_of_edit": sight.kind, **texts}
    content: list[str | Picture] = [
        f"The quoted texts: {quoted(texts)}\nImage 1, before the edit:",
        Picture(sight.input_png),
        "Image 2, after the edit:",
        Picture(sight.target_png),
    ]
    if difference and sight.difference_png is not None:
        content += [f"Image 3. {prompt.difference}", Picture(sight.difference_png)]
    content.append(f"Look at the images and answer with the JSON object: {', '.join(_KEYS[form])}.")
    return [
        Message(role="system", content=getattr(prompt, form)),
        Message(role="user", content=content),
    ]


def answer_schema(form: Form) -> dict[str, Any]:
    """``response_format``: exactly the keys of an answer, in their order."""
    kinds: Mapping[str, Any] = {key: {"type": "integer", "enum": [1, 2, 3, 4, 5]} for key in MARKS}
    keys: Sequence[str] = _KEYS[form]
    return {
        "type": "json_schema",
        "json_schema": {
            "name": form,
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {key: kinds.get(key, {"type": "string"}) for key in keys},
                "required": list(keys),
                "additionalProperties": False,
            },
        },
    }
