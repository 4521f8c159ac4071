"""The console command ``editpairs``: the pipeline's commands, and those of the editor."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
