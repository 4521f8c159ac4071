"""How Tar is made from I: the ``method`` of a task."""

from typing import Literal

Method = Literal[
    "prompt2prompt",
    "editor",
    "draw_box",
    "draw_mask",
    "draw_text",
    "adjust",
    "sketch",
    "depth",
    "normal",
    "pose",
]
"""How Tar is made from I. A diffusion model draws it by the first two, the others draw upon I."""
DRAWN: tuple[Method, ...] = ("prompt2prompt", "editor")
"""The methods by which a diffusion model draws Tar."""
