"""The command line. Each command imports large libraries only when it runs."""

import sys

from pipeline.cli.start import ending_quietly, open_streams

open_streams()
with ending_quietly():
    from pipeline.cli import run, look, verdicts, deliver, disk  # noqa: I001 - the order in which --help lists them
    from pipeline.cli.app import app, report, report_interrupt
    from pipeline.errors import input_output_error
    from pipeline.interrupts import heeded

__all__ = ["app", "deliver", "disk", "look", "main", "run", "verdicts"]


def main() -> None:
    """The entry point of the console command."""
    with heeded():
        try:
            app()
        except KeyboardInterrupt:  # before or after the command itself
            sys.exit(report_interrupt())
        except OSError as error:  # the same, such as --help on a full disk
            sys.exit(report(input_output_error(error)))
