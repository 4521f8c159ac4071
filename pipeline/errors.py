"""What stops a run; the command line prints the message and no traceback."""


class UserError(Exception):
    """The input is wrong; the message names the key or file and the way out."""

    exit_code = 2


class StageError(Exception):
    """A stage could not go on; what was committed before stays."""

    exit_code = 1

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
        """A traceback for the run's ``last_error.txt``; may be empty."""
