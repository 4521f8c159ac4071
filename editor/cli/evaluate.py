"""``editpairs evaluate``."""

from typing import Annotated

import typer

from editor.cli.options import (
    Clip,
    Dino,
    ImageGuidance,
    Model,
    Predictor,
    Seed,
    Steps,
    TextGuidance,
    chosen_models,
)
from pipeline.cli.app import app, console
from pipeline.cli.options import Out


@app.command(
    epilog="Examples:\n\n  editpairs evaluate toybox/weights/editor runs/toybox --test-share 1 "
    "--clip toybox/weights/clip --dino none\n\n"
    "  editpairs evaluate weights/editor emu_edit_test_set --split test --side 512"
)
def evaluate(
    model: Model,
    pairs: Annotated[
        str,
        typer.Argument(
            metavar="PAIRS", help="a run, an export, or a data set in parquet (Emu Edit, MagicBrush, ...)"
        ),
    ],
    out: Out = "evaluation",
    clip: Clip = None,
    dino: Dino = None,
    test_share: Annotated[
        float, typer.Option(min=0, max=1, help="of pairs of ours: the held-out share; 1: all pairs")
    ] = 0.02,
    split: Annotated[str, typer.Option(help="of Emu Edit's test set: test or validation")] = "test",
    side: Annotated[
        int | None, typer.Option(min=8, max=4096, help="cut a centre square and resize it; default: as it is")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="most edits, the first ones")] = None,
    predict_tasks: Annotated[
        bool, typer.Option("--predict-tasks", help="predict all tasks, also those the data set names")
    ] = False,
    predictor: Predictor = None,
    seed: Seed = 0,
    batch: Annotated[int, typer.Option(min=1, max=512, help="edits made at once")] = 8,
    text_guidance: TextGuidance = None,
    image_guidance: ImageGuidance = None,
    steps: Steps = None,
) -> None:
    """Edit the inputs of a data set and measure the results: Emu Edit's metrics by task, with intervals."""
    from editor.data.edit_sets import EditSet
    from editor.editing.editor import Editor
    from editor.evaluation.evaluate import evaluate as run
    from editor.evaluation.metrics import CLIPS, DINOS, Measures
    from editor.evaluation.results import figures_table, write_results
    from pipeline.store.location import locate
    from pipeline.store.outputs import new_folder

    edits = EditSet(pairs, test_share, split, side)
    data = edits.format
    with new_folder(locate(out)) as folder:
        measures = Measures(chosen_models(clip, CLIPS), chosen_models(dino, DINOS))
        editor = Editor.from_pretrained(model, predictor).with_guidance(text_guidance, image_guidance, steps)
        found = run(
            editor, edits, measures, rows=rows, predict=predict_tasks, seed=seed, batch=batch, told=_count
        )
        about = {
            "editor": model,
            "data": f"{pairs} ({data})",
            "guidance": vars(editor.guidance),
            "models and the pixels they see": measures.models,
            "side": side or "as it is",
            "split": split if data.startswith("Emu") else f"held-out share {test_share:g}",
            "tasks": "predicted" if predict_tasks else "of the data set, or else predicted",
            "seed": seed,
            "notes": dict(edits.notes),
        }
        write_results(folder, found, about)
    console.print(figures_table(found))
    for reason, count in {**found.skipped, **edits.notes}.items():
        console.print(f"{count} edits: {reason}")
    console.print(f"wrote {out}: report.html, sheet.png, results.json, edits.parquet", soft_wrap=True)


def _count(edits: int) -> None:
    if edits % 200 < 8:
        console.print(f"measured {edits} edits")
