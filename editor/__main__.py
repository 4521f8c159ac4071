"""The console command ``editpairs``: the pipeline's commands, and those of the editor."""

import editor.cli  # noqa: F401 - adds its commands
from pipeline.cli import main

if __name__ == "__main__":
    main()
