"""Editing pictures with a trained editor."""
