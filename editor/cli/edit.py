"""``editpairs edit``."""

from pathlib import Path
from typing import Annotated

import typer

from editor.cli.options import ImageGuidance, Model, Predictor, Seed, Steps, TextGuidance
from pipeline.cli.app import app, console
from pipeline.cli.options import Out


@app.command(
    epilog='Examples:\n\n  editpairs edit toybox/weights/editor picture.png "paint the ball red"\n\n'
    '  editpairs edit toybox/weights/editor picture.png "remove the car" "make it night" --out edits'
)
def edit(
    model: Model,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="the picture to edit")],
    instructions: Annotated[
        list[str], typer.Argument(metavar="INSTRUCTION...", help="edits, one after another")
    ],
    task: Annotated[str | None, typer.Option(help="the task of all instructions; default: predicted")] = None,
    predictor: Predictor = None,
    seed: Seed = 0,
    text_guidance: TextGuidance = None,
    image_guidance: ImageGuidance = None,
    steps: Steps = None,
    alpha: Annotated[float, typer.Option(min=0, help="pixels that change less are kept; 0: none")] = 0.03,
    kernel: Annotated[int, typer.Option(min=1, help="side of the area over which change is averaged")] = 5,
    out: Out = "edited",
) -> None:
    """Edit a picture by instructions, one after another. The new folder has every turn and a sheet."""
    from editor.editing.editor import Editor
    from pipeline.store.location import locate
    from pipeline.store.outputs import new_folder
    from stages.pictures.png import encode_png

    with new_folder(locate(out)) as folder:
        editor = Editor.from_pretrained(model, predictor).with_guidance(text_guidance, image_guidance, steps)
        session = editor(image, *instructions, task=task, seed=seed, alpha=alpha, kernel=kernel)
        for number, turn in enumerate(session.turns, start=1):
            console.print(
                f"turn {number}: {turn.instruction}: {turn.choice.told()}; {turn.kept:.0%} of the pixels kept"
            )
            with folder.file(f"turn-{number}.png") as file:
                file.write(encode_png(turn.pixels))
        with folder.file("sheet.png") as file:
            file.write(session.sheet())
    console.print(f"wrote {out}", soft_wrap=True)
