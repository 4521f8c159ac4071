"""The command ``editpairs`` itself: how it ends, and the console that every command prints to."""

import signal
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from pipeline.errors import StageError, UserError, describe, input_output_error
from pipeline.interrupts import received
from pipeline.shown import Terminal, terminal


class Commands(TyperGroup):
    """Every way a command can end has an exit code and at most one message.

    2 for an error of the user or of a file, 1 for a stopped stage, after a signal 128 and its number. Said
    here, because Typer ends a process on KeyboardInterrupt and SystemExit without a word.
    """

    def invoke(self, ctx: Any) -> Any:
        errors = Terminal(stderr=True, soft_wrap=True)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            errors.print("\nstopped; what was committed stays, and the same command goes on from there")
            raise typer.Exit(128 + (received() or signal.SIGINT)) from None
        except (UserError, StageError) as error:
            ending: UserError | StageError = error
        except BrokenPipeError:
            raise  # the reader has gone, as of `| head`: Typer ends quietly
        except OSError as error:
            ending = input_output_error(error)
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):
                raise  # rich's answer to it
            ending = StageError(f"stopped: code of a stage or library ended the process ({describe(error)})")
        errors.print(Text("error:", "bold red"), end=" ")
        errors.print(str(ending))
        if isinstance(ending, StageError):
            errors.print("What was committed stays; the same command goes on from there.")
            if ending.details:
                errors.print("The traceback is in last_error.txt in the run's folder.")
        raise typer.Exit(ending.exit_code)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Captions in, a training set for instruction-based image editing out.",
    epilog="Examples:\n\n  editpairs generate toybox\n\n  editpairs status runs/toybox --watch\n\n"
    "  editpairs report runs/toybox",
)
console = terminal()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"editpairs {version('editpairs')}")
        raise typer.Exit


@app.callback()
def options(
    shown: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Options of ``editpairs`` itself, before the command."""
