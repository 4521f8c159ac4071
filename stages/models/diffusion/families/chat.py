"""Text encoders that are language models: a prompt is read within a template of a conversation.

They read a fixed number of tokens, padded on the right, so that a prompt's states do not depend on the others
of its batch. The attention of the picture does not see the padding.
"""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.models.diffusion.families.chat_files import LENGTH
from stages.models.diffusion.families.joint import JointPrompts
from stages.models.diffusion.families.within import Within
from stages.models.diffusion.prompts import Embeddings, Segment


class ChatPrompts(JointPrompts):
    """One tokenizer and language model.

    ``layer``: whose states are taken. ``dropped``: number of the template's first tokens whose states are not
    used.
    """

    layer, dropped = -1, 0

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> None:
        self.device, self.tokenizer, self.context_length = encoder.device, tokenizer, LENGTH
        self._encoder = encoder.eval().requires_grad_(False)
        self.empty = self.encode([""])

    def written(self, prompt: str) -> str:
        """A prompt within its template."""
        raise NotImplementedError

    @property
    def segments(self) -> tuple[Segment, ...]:
        """One: the template's tokens before and after the prompt, but for the first, are states too."""
        read = Within(self.tokenizer, self.written, lambda tokens: range(self.dropped, tokens))
        return (Segment(read, self.context_length),)

    def fits(self, prompt: str) -> bool:
        tokens = self.tokenizer(self.written(prompt), truncation=False).input_ids
        return len(tokens) <= self.dropped + self.context_length

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Embeddings:
        """States [n,T,d], zeros at padding, and which tokens are none [n,T]."""
        encoded = self.tokenizer(
            [self.written(prompt) for prompt in prompts],
            padding="max_length",
            max_length=self.dropped + self.context_length,
            truncation=True,
            padding_side="right",
            return_tensors="pt",
        )
        mask = encoded.attention_mask.to(self.device)
        output = self._encoder(encoded.input_ids.to(self.device), mask, output_hidden_states=True)
        states, mask = output.hidden_states[self.layer][:, self.dropped :], mask[:, self.dropped :].bool()
        return Embeddings(torch.where(mask[..., None], states, 0), mask=mask)
