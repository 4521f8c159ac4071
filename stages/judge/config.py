"""The manifest's section ``judge``."""

from typing import Literal

from pydantic import Field

from stages.base import StageConfig
from stages.judge.prompt import PROMPT, PromptFile, read_prompt
from stages.models.chat.config import ChatConfig


class JudgeConfig(StageConfig, ChatConfig):
    """The manifest's section ``judge``. Without it the stage does not run."""

    temperature: float = Field(0.2, ge=0, le=100, description="low: a mark should be the likeliest one")
    max_new_tokens: int = Field(512, ge=1, le=1 << 16)
    attempts: int = Field(
        3, ge=1, le=100, description="most attempts per question before the candidate has no marks"
    )
    difference: Literal["none", "same", "second"] = Field(
        "same",
        description="the picture of the differences outside the edit: not shown, shown with the two "
        "pictures, or shown in a second question about consistency alone, of which the lower mark counts",
    )
    recaption: bool = Field(
        False, description="whether the judge may write another instruction for a good pair of another edit"
    )
    prompt: PromptFile = Field(
        default_factory=lambda: read_prompt(PROMPT), description="a file with the wording"
    )
