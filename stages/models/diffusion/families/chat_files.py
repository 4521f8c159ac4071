"""What is known of pipelines whose text encoder is a language model, without a model library."""

LENGTH = 256
"""Tokens of a prompt, template included, that take part in the attention.

diffusers' pipelines allow 512. Padding is computed too, and captions of pairs are short.
"""
