"""What all layers of a region-sparse U-Net share during a call."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import torch

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.sparse.plan import Call, StepPlan
from stages.edit.sparse.token_lists import Size


class Mode(Enum):
    """What the layers do: compute plainly, store what the edits will read, or compute edits."""

    PLAIN = auto()
    SOURCES = auto()
    EDITS = auto()


@dataclass
class State:
    """The state of one U-Net.

    Attributes:
        mode: of the present call.
        control: Prompt-to-Prompt of the present batch.
        sizes: of the feature maps, by level.
        plan: of the present step.
        call: the present call, in mode EDITS, and ``number``, its place in the plan.
        memory: what each layer stored of the sources in this step, by the layer's name.
        text: the prompts' embeddings of all rows [R,T,d].
    """

    mode: Mode = Mode.PLAIN
    control: PromptToPrompt | None = None
    sizes: list[Size] = field(default_factory=list)
    plan: StepPlan | None = None
    call: Call | None = None
    number: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    text: torch.Tensor | None = None

    @property
    def lists(self) -> list[torch.Tensor] | None:
        """The lists of the present call; None if it computes whole pictures, or sources."""
        return self.call.lists if self.mode is Mode.EDITS and self.call is not None else None

    def level_of(self, features: torch.Tensor) -> int:
        """The level of feature maps [R,C,h,w] of whole pictures."""
        return self.sizes.index((features.shape[2], features.shape[3]))
