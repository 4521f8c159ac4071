"""What is known of Z-Image's transformer without a model library."""

MULTIPLE = 32
"""Tokens of text, and of a picture, are padded to a multiple of so many."""
