"""What stops a run; the command line prints the message and no traceback."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import interrupts


class UserError(Exception):
    """The input is wrong; the message names the key or file and the way out."""

    exit_code = 2


class StageError(Exception):
    """A stage could not go on; what was committed before stays."""

    exit_code = 1

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(_encodable(message))
        self.details = _encodable(details)
        """A traceback for the run's ``last_error.txt``; may be empty."""


def describe(error: BaseException) -> str:
    """``Type: message``, whatever the exception is."""
    try:
        message = str(error)
    except BaseException as another:  # a message may be made by any code
        message = f"(its message raised {type(another).__name__})"
    return f"{type(error).__name__}: {message}"


def input_output_error(error: OSError, path: object = "") -> UserError:
    """The system's words about a file, and which file: the error's own if it names one, else ``path``."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None] or [str(path)]
    return UserError(": ".join(filter(None, [" -> ".join(names), error.strerror or describe(error)])))


@contextmanager
def stopping(stage: str, action: str) -> Iterator[None]:
    """A stage's code in here is not about one row, so whatever it raises stops the stage.

    Args:
        stage: its name.
        action: what it is asked to do, such as "start".

    Raises:
        StageError: it raised; it could not do ``action``.
    """
    try:
        yield
    except (UserError, StageError):
        raise
    except BaseException as error:  # SystemExit too: it would end the driver without a word
        interrupts.check()
        raise StageError(f"{stage} could not {action}: {describe(error)}", traceback.format_exc()) from error


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
