"""The editor's commands of ``editpairs``. Each imports large libraries only when it runs."""

from editor.cli import train, edit, evaluate, compare, invert  # noqa: I001 - the order in which --help lists them

__all__ = ["compare", "edit", "evaluate", "invert", "train"]
