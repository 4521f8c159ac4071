"""Arguments and options shared by several commands, and the parsing of their values."""

import re
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.engine.progress import Verbosity


class EngineName(str, Enum):
    ray = "ray"
    local = "local"


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="a run folder")]
Manifest = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST", help="the YAML file of a run, or the name of one that is shipped, such as toybox"
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a key of the manifest; may be repeated"),
]
EngineOption = Annotated[
    EngineName, typer.Option(help="ray: all workers and GPUs; local: a plain loop, for debugging")
]
Out = Annotated[
    str, typer.Option("--out", metavar="PATH_OR_URL", help="a new folder: local, s3://, gs:// or hf://")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="draws the pairs")]
Replace = Annotated[bool, typer.Option("--replace", help="allow committed parts to be made again")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress and no tables")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="one line for every written file")]


def verbosity(quiet: bool, verbose: bool) -> "Verbosity":
    """The amount of progress output of a command."""
    if quiet and verbose:
        raise UserError("--quiet and --verbose contradict each other: give one of them")
    return "quiet" if quiet else "verbose" if verbose else "normal"


def parse_parts(text: str) -> range:
    """Parse ``"3"`` or ``"0-4"``; both ends are included."""
    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
    if not match:
        raise UserError(f"--parts {text}: write a part or a range, such as 0-4")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UserError(f"--parts {text}: the range is empty")
    return range(first, last + 1)
