"""``editpairs compare``."""

from typing import Annotated

import typer

from editor.cli.options import Clip, Dino, Predictor, chosen_models
from pipeline.cli.app import app, console
from pipeline.cli.options import Manifest, Set


@app.command(
    epilog="Examples:\n\n  editpairs compare editor-toybox runs/filtered runs/unfiltered --on runs/toybox\n\n"
    "  editpairs compare editor-toybox training.task_embedding=true training.task_embedding=false "
    "--on runs/toybox --seeds 3 --set training.steps=1000"
)
def compare(
    manifest: Manifest,
    arms: Annotated[
        list[str],
        typer.Argument(
            metavar="ARM...",
            help="at least two: pairs (a run, an export, shards), or KEY=VALUE of the manifest",
        ),
    ],
    on: Annotated[
        str, typer.Option(metavar="PAIRS", help="the edits to judge by: any data set of editpairs evaluate")
    ],
    overrides: Set = None,
    name: Annotated[str, typer.Option(help="the comparison's folder, in the manifest's runs")] = "comparison",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="trainings of each arm")] = 1,
    clip: Clip = None,
    dino: Dino = None,
    side: Annotated[
        int | None, typer.Option(min=8, max=4096, help="cut a centre square and resize it; default: as it is")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="most edits, the first ones")] = None,
    predictor: Predictor = None,
) -> None:
    """Train the same editor on two or more sets of pairs, and tell the paired differences.

    After any interruption, the same command continues.
    """
    from editor.comparison.arms import folder_of, read_arms
    from editor.comparison.compare import Plan, measure_all, train_all
    from editor.comparison.paired import paired
    from editor.comparison.results import RESULTS, SHEET, Arms, difference_table, write_json, write_sheet
    from editor.data.edit_sets import EditSet
    from editor.evaluation.metrics import CLIPS, DINOS, Measures
    from pipeline.manifest.named import find_manifest
    from pipeline.store.lock import held

    read = read_arms(find_manifest(manifest), [*(overrides or []), f"name={name}"], arms)
    first_seed = read[0].manifest.seed
    numbers = range(first_seed, first_seed + seeds)
    plan = Plan(folder_of(read), read, numbers, on, side, rows, predictor)
    kind = EditSet(on).format
    measures = Measures(chosen_models(clip, CLIPS), chosen_models(dino, DINOS))
    with held(plan.folder):
        trained = train_all(plan, console)
        figures = measure_all(plan, trained, measures, console)
        first, *others = read
        found = {arm.label: paired(figures[first.label], figures[arm.label]) for arm in others}
        about = {
            "edits": f"{on} ({kind})",
            "models and the pixels they see": measures.models,
            "editors": {arm.label: [str(plan.editor(arm, seed)) for seed in numbers] for arm in read},
        }
        told = Arms({arm.label: arm.text for arm in read}, numbers)
        write_json(plan.folder / RESULTS, told, found, about)
        write_sheet(plan, trained)
    for arm in others:
        console.print(f"{first.label}: {first.text}; {arm.label}: {arm.text}")
        console.print(difference_table(first.label, arm.label, found[arm.label]))
    console.print(f"wrote {plan.folder}: {RESULTS}, {SHEET}", soft_wrap=True)
