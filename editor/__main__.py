"""The console command ``editpairs``: the pipeline's commands, and those of the editor."""

from editor import cli
from pipeline.cli import main

__all__ = ["cli", "main"]
"""``cli`` adds the editor's commands as it is imported."""

if __name__ == "__main__":
    main()
