"""The editor's U-Net: a text-to-image U-Net that also receives the input picture and a task vector.

The task vector v_i is the last token of ``encoder_hidden_states``. Cross-attention sees it there, and
``forward`` takes it from there and adds its projection to the time embedding (Emu Edit, section 4.2). So one
tensor reaches both paths, and the InstructPix2Pix pipelines of diffusers run this U-Net unchanged.
"""

from functools import wraps
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DConditionModel
from torch import Tensor, nn

__all__ = ["EditorUNet", "ModelMixin", "token_width"]
"""``DiffusionPipeline.from_pretrained`` looks for ``ModelMixin`` in the module of a saved class."""


class EditorUNet(UNet2DConditionModel):
    """``sample`` [b,2c,h,w] is the noisy latent and the input picture's latent, joined by channel.

    ``task_projection`` (width of a token -> width of the time embedding) begins at zero, and so do the
    weights of ``conv_in`` for the input picture. A new editor therefore predicts what its text-to-image model
    predicts.
    """

    # from_config reads the parameters' names from the signature.
    @wraps(UNet2DConditionModel.__init__)  # type: ignore[misc]
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        width = self.time_embedding.linear_2.out_features
        self.task_projection = nn.Linear(token_width(self), width, bias=False)
        nn.init.zeros_(self.task_projection.weight)

    @classmethod
    def from_text_to_image(cls, unet: UNet2DConditionModel) -> "EditorUNet":
        """An editor's U-Net with the weights of a text-to-image model.

        Raises:
            ValueError: the model has class labels of its own.
        """
        if unet.config.class_embed_type is not None or unet.config.num_class_embeds is not None:
            raise ValueError("its U-Net has class labels, and the task vector needs their place")
        config = {key: value for key, value in unet.config.items() if not key.startswith("_")}
        channels = unet.config.in_channels
        editor = cls(**config | {"in_channels": 2 * channels, "class_embed_type": "identity"})
        state = unet.state_dict()
        wide = torch.zeros_like(editor.conv_in.weight, dtype=state["conv_in.weight"].dtype)
        wide[:, :channels] = state["conv_in.weight"]
        state["conv_in.weight"] = wide
        state["task_projection.weight"] = editor.task_projection.weight
        editor.load_state_dict(state)
        return editor.to(dtype=unet.dtype)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """As in the parent class. ``encoder_hidden_states`` [b,T+1,d] end with the task vector.

        ``class_labels`` is not used: the task vector takes its place.
        """
        task = self.task_projection(encoder_hidden_states[:, -1])
        return super().forward(sample, timestep, encoder_hidden_states, class_labels=task, **options)


def token_width(unet: UNet2DConditionModel) -> int:
    """The width d of a token of ``encoder_hidden_states``."""
    width = unet.config.cross_attention_dim
    return int(width if isinstance(width, int) else width[0])
