"""Arguments and options shared by several commands of the editor."""

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="MODEL", help="an editor: its folder or hub name")]
Predictor = Annotated[str | None, typer.Option(help="a task predictor; default: the editor's own")]
Seed = Annotated[int, typer.Option(min=0, help="draws the noise")]
TextGuidance = Annotated[float | None, typer.Option(min=1, help="default: the editor's")]
ImageGuidance = Annotated[float | None, typer.Option(min=1, help="default: the editor's")]
Steps = Annotated[int | None, typer.Option(min=1, max=1000, help="default: the editor's")]
