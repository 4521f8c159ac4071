"""Task inversion: a new task for a trained editor, learned from a few pairs."""
