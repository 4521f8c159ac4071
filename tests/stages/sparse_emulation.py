"""Token sparsity, emulated by the dense path: before every layer that mixes tokens, an edit's tokens outside
its list are replaced by its source's. Far slower than either path; a check of the sparse one.
"""

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.upsampling import Upsample2D
from torch import nn

from stages.edit.prompt_to_prompt.attention import begin, install
from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.fusion import free_above
from stages.edit.sparse import plan
from stages.edit.sparse import token_lists as lists
from stages.edit.sparse.token_lists import free_tokens, level_sizes, needed_share, token_lists


def compute_all_as_lists(monkeypatch) -> None:
    """Every picture is computed as a list of all of its tokens."""
    monkeypatch.setattr(lists, "list_lengths", lambda share, sizes: [h * w for h, w in sizes])
    monkeypatch.setattr(plan, "needed_share", lambda free, sizes: 0.5)


class EmulatedUNet:
    """Stands in a U-Net's place. ``source_statistics``: of the source alone in group norms (a mistake)."""

    def __init__(self, unet, control: PromptToPrompt, *, halo: int, support: bool, source_statistics=False):
        self.unet, self.control, self.config = unet, control, unet.config
        self.source_statistics = source_statistics
        sizes = level_sizes((unet.config.sample_size,) * 2, len(unet.config.block_out_channels))
        self.kept = [self._kept(step, sizes, halo, support) for step in range(control.steps)]
        begin(install(unet), control)
        # A token outside of the list has its source's attention too, which a later turn's edit reads.
        mask_for = control.mask_for
        control.mask_for = lambda tokens: mask_for(tokens) * self.kept[control.step][tokens][..., None]
        for module in unet.modules():
            if isinstance(module, Upsample2D):
                module.register_forward_pre_hook(lambda _, args: (self.pasted(args[0]), *args[1:]))
                module.conv.upsampled = True
            elif isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(lambda _, args: (self.pasted(args[0]), *args[1:]))
                if source_statistics:
                    module.register_forward_hook(self.with_sources_statistics)
            elif isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.register_forward_pre_hook(self.before_conv)
            elif isinstance(module, Attention):
                module.register_forward_pre_hook(lambda _, args: (self.pasted(args[0]), *args[1:]))

    def _kept(self, step, sizes, halo, support) -> dict[int, torch.Tensor]:
        """By number of tokens, the tokens that are the edit's own [E,N]."""
        above = free_above(self.control.fusion, step, self.control.steps)
        free = free_tokens(self.control.mask, min(above, 0) if support else above, sizes[0], halo)
        free[self.control.blended] = True
        kept = {height * width: torch.zeros(len(free), height * width) > 0 for height, width in sizes}
        for edit, own in enumerate(free):
            share = needed_share(own, sizes)
            lists = token_lists(own, share, sizes) if 0 < share < 1 else []
            for number, tokens in enumerate(kept.values()):
                tokens[edit, lists[number] if lists else slice(None)] = share > 0
        return kept

    def rows(self) -> list[tuple[slice, torch.Tensor, torch.Tensor]]:
        """The edits of each turn and half, with their rows and their sources' rows."""
        own = self.control
        return [
            (turn, own.edit_rows[turn] + h, own.source_rows[turn] + h)
            for turn in own.turns
            for h in own.halves
        ]

    def pasted(self, states: torch.Tensor) -> torch.Tensor:
        """States [R,C,h,w] or [R,N,C] with the sources' tokens outside the edits' lists."""
        is_map, result = states.ndim == 4, states.clone()
        flat = result.flatten(2).transpose(1, 2) if is_map else result
        kept = self.kept[self.control.step][flat.shape[1]][..., None]
        for turn, edits, sources in self.rows():
            flat[edits] = torch.where(kept[turn], flat[edits], flat[sources])
        return flat.transpose(1, 2).reshape(states.shape) if is_map else flat

    def before_conv(self, conv, args):
        return None if getattr(conv, "upsampled", False) else (self.pasted(args[0]), *args[1:])

    def with_sources_statistics(self, norm, args, output):
        states, groups = args[0], norm.num_groups
        for _, edits, sources in self.rows():
            theirs = states[sources].unflatten(1, (groups, -1))
            variance, mean = torch.var_mean(theirs, (2, 3, 4), correction=0, keepdim=True)
            own = (states[edits].unflatten(1, (groups, -1)) - mean) * (variance + norm.eps).rsqrt()
            output[edits] = own.flatten(1, 2) * norm.weight[:, None, None] + norm.bias[:, None, None]
        return output

    def __call__(self, *args, **kwargs):
        output = self.unet(*args, **kwargs)
        output.sample = self.pasted(output.sample)
        return output
