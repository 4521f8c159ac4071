"""What all layers of a region-sparse U-Net share during a call."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import torch

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.sparse.calls import Call, StepPlan
from stages.edit.sparse.token_lists import Size


class Mode(Enum):
    """What the layers do: compute sources and store what their edits will read, or compute edits."""

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
        compiled: whether the calls run as compiled graphs. What they see must then depend neither on the
            step nor on the plan, but for the lengths of lists: every token of the sources is stored, and
            closed gates are computed too.
    """

    mode: Mode = Mode.SOURCES
    control: PromptToPrompt | None = None
    sizes: list[Size] = field(default_factory=list)
    roots: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    pictures: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    plan: StepPlan | None = None
    call: Call | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    compiled: bool = False

    @property
    def step(self) -> StepPlan:
        """The plan, during a step."""
        assert self.plan is not None
        return self.plan

    @property
    def present(self) -> Call:
        """The call, in mode EDITS."""
        assert self.call is not None
        return self.call

    @property
    def controlled(self) -> PromptToPrompt:
        """The control, during a batch."""
        assert self.control is not None
        return self.control

    @property
    def cross_open(self) -> bool:
        """Whether gates of cross-attention are computed: if one is open in this step, or in every step."""
        return self.compiled or self.controlled.cross_open

    def borrowed_rows(self, tokens: int) -> torch.Tensor | None:
        """As :meth:`PromptToPrompt.borrowed_rows`, in every step of a compiled network."""
        control = self.controlled
        if not self.compiled:
            return control.borrowed_rows(tokens)
        return control.query_rows if tokens <= control.self_max_tokens else control.shared_rows

    def follows_words(self, tokens: int) -> bool:
        """Whether cross-attention of so many tokens adds to LocalBlend's maps."""
        return self.controlled.blending and tokens == self.controlled.blend_tokens

    def level_of(self, features: torch.Tensor) -> int:
        """The level of feature maps [R,C,h,w] of whole pictures."""
        return self.sizes.index((features.shape[2], features.shape[3]))

    def end(self) -> None:
        """Forget the step."""
        self.plan, self.call, self.memory = None, None, {}
