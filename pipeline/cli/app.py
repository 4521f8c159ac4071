"""The command ``editpairs``: exit codes, and the console for all output."""

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
    """Gives every ending of a command an exit code and at most one message.

    2: an error of the user or of a file. 1: a stopped stage. 128 plus its number: a signal. The messages are
    printed here, because Typer ends a process silently on KeyboardInterrupt and SystemExit.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(report_interrupt()) from None
        except (UserError, StageError) as error:
            ending: UserError | StageError = error
        except BrokenPipeError:
            raise  # the reader closed the pipe, as `| head` does: Typer ends quietly
        except OSError as error:
            ending = input_output_error(error)
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):
                raise  # for rich to handle
            ending = StageError(f"stopped: code of a stage or library ended the process ({describe(error)})")
        raise typer.Exit(report(ending))


def report_interrupt() -> int:
    """Print on standard error that a signal ended the command. Returns the exit code."""
    errors = Terminal(stderr=True, soft_wrap=True)
    errors.print("\nstopped; what was committed stays, and the same command goes on from there")
    return 128 + (received() or signal.SIGINT)


def report(ending: UserError | StageError) -> int:
    """Print the message of an error on standard error. Returns the exit code."""
    errors = Terminal(stderr=True, soft_wrap=True)
    errors.print(Text("error:", "bold red"), end=" ")
    errors.print(str(ending))
    if isinstance(ending, StageError):
        errors.print("What was committed stays; the same command goes on from there.")
        if ending.details:
            errors.print("The traceback is in last_error.txt in the run's folder.")
    return ending.exit_code


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
