"""Control of joint attention, in which text and picture share one softmax.

See docs/prompt-to-prompt.md, section 9.

While its gate is open, an edit's picture queries and keys are its source's. Its text's queries and keys, and
all its values, are its own (Shin et al. 2025):

    O = SDPA([Q_X,t ; Q_I,s], [K_X,t ; K_I,s], V_t)

Rows of the map stay normalised, no token map is needed, and it is one call. If the source is an edit itself,
its own queries and keys are those that it uses.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.outside import mix_outside


class JointAttention:
    """Computes the joint attention of all layers of a network. Without a control it is plain attention."""

    def __init__(self) -> None:
        self.control: PromptToPrompt | None = None

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, text_tokens: int
    ) -> torch.Tensor:
        """The output [R,heads,T+N,D] for heads of the same shape; the first T = ``text_tokens`` are text."""
        control = self.control
        if control is None:
            return sdpa(query, key, value)
        if control.self_open:
            query, key = (_with_picture_of(control.query_rows, each, text_tokens) for each in (query, key))
        output = sdpa(query, key, value)
        text, picture = output.tensor_split([text_tokens], 2)
        mixed = mix_outside(picture.transpose(1, 2).flatten(2), control)
        return torch.cat([text, mixed.unflatten(2, (output.shape[1], -1)).transpose(1, 2)], 2)


def _with_picture_of(rows: torch.Tensor, heads: torch.Tensor, text_tokens: int) -> torch.Tensor:
    """Heads [R,heads,T+N,D], the picture's tokens of each row taken from another row."""
    text, picture = heads.tensor_split([text_tokens], 2)
    return torch.cat([text, picture.index_select(0, rows)], 2)
