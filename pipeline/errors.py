"""Errors that stop a command. The command line prints the message without a traceback."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import interrupts


class UserError(Exception):
    """The input is wrong. The message names the key, row or file, and how to fix it."""

    exit_code = 2


class StageError(Exception):
    """A stage could not continue. Committed files stay."""

    exit_code = 1

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(_encodable(message))
        self.details = _encodable(details)
        """A traceback for the run's ``last_error.txt``; can be empty."""


def describe(error: BaseException) -> str:
    """``Type: message`` of any exception."""
    try:
        message = str(error)
    except BaseException as another:  # the exception's __str__ is foreign code and can raise anything
        message = f"(its message raised {type(another).__name__})"
    return f"{type(error).__name__}: {message}"


def input_output_error(error: OSError, path: object = "") -> UserError:
    """A UserError with the system's message and the file: the error's own file name, or else ``path``."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None] or [str(path)]
    return UserError(": ".join(filter(None, [" -> ".join(names), error.strerror or describe(error)])))


@contextmanager
def stopping(stage: str, action: str) -> Iterator[None]:
    """Turn every exception inside the block into a StageError: the code concerns the stage, not one row.

    Args:
        stage: name of the stage.
        action: what the stage is doing, such as "start".

    Raises:
        StageError: the block raised; the message says that the stage could not do ``action``.
    """
    try:
        yield
    except (UserError, StageError):
        raise
    except BaseException as error:  # includes SystemExit, which would end the driver without a message
        interrupts.check()
        raise StageError(f"{stage} could not {action}: {describe(error)}", traceback.format_exc()) from error


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
