"""What all layers of a region-sparse U-Net share during a call."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import torch

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.sparse.calls import Call, StepPlan
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
        roots: for each stored picture the source row that it began as, int64 [halves * pictures].
        pictures: for each row of the batch the stored picture, -1 if it is not stored, int64 [R].
        plan: of the present step.
        call: the present call, in mode EDITS.
        memory: what each layer stored in this step, by the layer's name.
    """

    mode: Mode = Mode.PLAIN
    control: PromptToPrompt | None = None
    sizes: list[Size] = field(default_factory=list)
    roots: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    pictures: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    plan: StepPlan | None = None
    call: Call | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> StepPlan:
        """The plan, in modes SOURCES and EDITS."""
        assert self.plan is not None
        return self.plan

    @property
    def present(self) -> Call:
        """The call, in mode EDITS."""
        assert self.call is not None
        return self.call

    @property
    def controlled(self) -> PromptToPrompt:
        """The control, in modes SOURCES and EDITS."""
        assert self.control is not None
        return self.control

    def level_of(self, features: torch.Tensor) -> int:
        """The level of feature maps [R,C,h,w] of whole pictures."""
        return self.sizes.index((features.shape[2], features.shape[3]))

    def end(self) -> None:
        """Forget the step."""
        self.mode, self.plan, self.call, self.memory = Mode.PLAIN, None, None, {}
