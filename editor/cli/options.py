"""Arguments and options shared by several commands of the editor."""

from collections.abc import Sequence
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="MODEL", help="an editor: its folder or hub name")]
Predictor = Annotated[str | None, typer.Option(help="a task predictor; default: the editor's own")]
Seed = Annotated[int, typer.Option(min=0, help="draws the noise")]
TextGuidance = Annotated[float | None, typer.Option(min=1, help="default: the editor's")]
ImageGuidance = Annotated[float | None, typer.Option(min=1, help="default: the editor's")]
Steps = Annotated[int | None, typer.Option(min=1, max=1000, help="default: the editor's")]
Clip = Annotated[
    list[str] | None, typer.Option(help="a CLIP: a folder or NAME@TAG; may be repeated; none: no CLIP")
]
Dino = Annotated[
    list[str] | None, typer.Option(help="a DINO: a folder or hub name; may be repeated; none: no DINO")
]


def chosen_models(names: Sequence[str] | None, default: Sequence[str]) -> Sequence[str]:
    """Models named by a repeated option; ``none`` names no model."""
    return default if not names else tuple(name for name in names if name != "none")
