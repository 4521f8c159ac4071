"""The command that frees disk space."""

import sys
from typing import Annotated

import typer

from pipeline.cli.app import app, console
from pipeline.cli.options import Quiet, RunArgument


@app.command(epilog="Examples:\n\n  editpairs prune runs/sdxl\n\n  editpairs prune runs/sdxl --yes")
def prune(
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", help="drop them without asking")] = False,
    quiet: Quiet = False,
) -> None:
    """Drop the pictures that filtering again does not need. Says first what, and asks; rows and texts stay.

    Without --yes and without a terminal to ask on, nothing is dropped.
    """
    from pipeline.api import chain_of, open_run
    from pipeline.engine.progress import Progress
    from pipeline.engine.pruning import prunable
    from pipeline.engine.pruning import prune as drop
    from pipeline.shown import size_shown
    from pipeline.views.pruned import pruning_table

    opened, progress = open_run(run), Progress(console, "quiet" if quiet else "normal")
    state, stages = opened.state, chain_of(opened.manifest)
    files = list(prunable(state, stages))
    if not files:
        console.print("nothing to drop: no finished part has a picture that filtering again does not need")
        return
    size = sum(each.size for each in files)
    if not quiet:
        console.print(pruning_table(files))
        console.print(
            f"{size_shown(size)} in {len(files)} files. Filtering again does not need them. A change before "
            "the filter does, and then they are made again.",
            soft_wrap=True,
        )
    if not (yes or _confirmed(opened.manifest.name)):
        console.print("nothing was dropped; --yes drops them")
        return
    dropped = 0
    with state.folder.owned() as check:
        state.scan()  # another command may have written since
        files = list(prunable(state, stages))
        with progress.stage("prune", len(files), sum(each.rows for each in files)) as advance:
            for each in drop(state, stages, files, check):
                dropped += each.size
                advance(each.rows)
    console.print(f"dropped {size_shown(dropped)} in {len(files)} files")


def _confirmed(name: str) -> bool:
    """Whether the user types the name of the run; False where there is no terminal to ask on."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    answer: str = typer.prompt("Type the name of the run to drop them", default="", show_default=False)
    return answer.strip() == name
