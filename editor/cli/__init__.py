"""The editor's commands of ``editpairs``. Each imports large libraries only when it runs."""

# In the order in which --help lists them.
from editor.cli import train, train_predictor, edit, evaluate, compare, invert  # noqa: I001

__all__ = ["compare", "edit", "evaluate", "invert", "train", "train_predictor"]
