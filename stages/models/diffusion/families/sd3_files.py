"""What is known of a Stable Diffusion 3 pipeline without a model library."""

CLIP_LENGTH = 77
"""Tokens of a prompt that CLIP reads."""
T5_LENGTH = 256
"""Tokens of a prompt that T5 reads, as in diffusers' pipeline by default. Without T5 they are zeros."""
