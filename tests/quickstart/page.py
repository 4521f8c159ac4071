"""The commands of a page: every line of its blocks of shell."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands_of(page: Path, language: str = "sh") -> Iterator[str]:
    """The lines of blocks in a language, in order; lines that end in a backslash are joined."""
    for found, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines() if found == language else ():
            if line.strip() and not line.startswith("#"):
                yield line


def words_of(command: str, environment: Mapping[str, str]) -> list[str]:
    """The words of a command, as a shell reads them: comments, ``~`` and variables, no other expansion.

    Raises:
        ValueError: the command needs a real shell.
    """
    words = shlex.split(command, comments=True)
    if any(set(word) & set("|;&<>`") for word in words):
        raise ValueError(f"{command}: a pipe, a redirection or a list of commands is not understood")
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        return [os.path.expandvars(os.path.expanduser(word)) for word in words]
    finally:
        os.environ.clear()
        os.environ.update(before)
