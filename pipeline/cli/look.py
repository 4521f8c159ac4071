"""Commands that show a run: its progress, cost, pairs and scores."""

from contextlib import ExitStack
from typing import Annotated

import typer

from pipeline.cli.app import app, console
from pipeline.cli.options import (
    Manifest,
    RunArgument,
    Seed,
    Set,
)
from pipeline.errors import UserError


@app.command(
    epilog="Examples:\n\n  editpairs status runs/toybox\n\n  editpairs status runs/toybox --watch\n\n"
    "  editpairs status runs/toybox --json | jq .pairs"
)
def status(
    run: RunArgument,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="a live table until the run is done; waits for it to begin")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object, of the fields of editpairs.RunStatus")
    ] = False,
) -> None:
    """Show where every planned row of a run is, read from the files' footers only."""
    from pipeline.views.run import open_state
    from pipeline.views.status import print_status
    from pipeline.views.watch import watch as watch_run

    if watch and as_json:
        raise UserError("--watch shows a table and --json prints once: give one of them")
    if watch:
        watch_run(run, console)
    elif as_json:
        from pipeline.api import open_run

        typer.echo(open_run(run).status().to_json())
    else:
        state = open_state(run)
        state.scan()
        print_status(state, console)


@app.command(
    epilog="Examples:\n\n  editpairs cost runs/toybox\n\n"
    "  editpairs generate manifests/sdxl.yaml --wave 1 && editpairs cost runs/sdxl --pairs 10000000"
)
def cost(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run folder; a pilot (--wave 1) is enough")],
    pairs: Annotated[
        int, typer.Option(min=1, max=10**15, help="number of kept pairs for the projection")
    ] = 1_000_000,
) -> None:
    """Show the measured cost of a run's kept pairs by stage, and the projected cost of more pairs."""
    from pipeline.views.cost import cost_table, measure, token_lines
    from pipeline.views.rounds import rounds_table
    from pipeline.views.run import open_state

    state = open_state(run)
    state.scan()
    measured = measure(state)
    if not measured.pairs:
        raise UserError(f"{run} has no pairs yet: run generate --wave 1 first")
    console.print(cost_table(measured, pairs))
    if measured.rounds:
        console.print(rounds_table(measured.rounds))
    seconds, gpu_seconds = measured.total.wall_seconds, measured.total.gpu_seconds
    console.print(
        f"{measured.pairs} pairs in {seconds:.0f} s: {measured.pairs / seconds:.2f} pairs a second, "
        f"{gpu_seconds / measured.pairs:.2f} GPU-seconds a kept pair"
    )
    for line in token_lines(measured, pairs):
        console.print(line, soft_wrap=True)


@app.command(
    epilog="Examples:\n\n  editpairs inspect runs/toybox --out sheet.png\n\n"
    "  editpairs inspect runs/toybox/shards/train-00000-of-00002.parquet --rows 24 --seed 3"
)
def inspect(
    path: Annotated[str, typer.Argument(metavar="SHARD_OR_RUN", help="a shard, or a run folder")],
    out: Annotated[str | None, typer.Option(help="write a contact sheet (PNG) here")] = None,
    rows: Annotated[int, typer.Option(min=1, help="number of pairs")] = 12,
    seed: Seed = 0,
    task: Annotated[str | None, typer.Option(help="only pairs of this task")] = None,
) -> None:
    """Show pairs: a table, and a contact sheet with input, mask, target, instruction and scores."""
    from pipeline.store.location import exists, locate, reached
    from pipeline.store.outputs import new_file
    from pipeline.views.contact_sheet import draw
    from pipeline.views.pairs import pairs_table, read_pairs
    from pipeline.views.run import near_runs

    location = locate(path)
    with reached(location):
        there = exists(location)
    if not there:
        raise UserError(f"there is no run or shard at {path}{near_runs(location)}")
    with ExitStack() as files:
        sheet = files.enter_context(new_file(locate(out))) if out is not None else None
        pairs = read_pairs(location, rows, seed, task)
        if not pairs:
            raise UserError(f"{path} holds no pairs" + (f" of task {task}" if task else " yet"))
        console.print(pairs_table(pairs))
        if sheet is not None:
            sheet.write(draw(pairs))
    if out is not None:
        console.print(f"wrote {out}", soft_wrap=True)


@app.command(
    epilog="Examples:\n\n  editpairs report runs/toybox\n\n"
    "  editpairs report runs/sdxl --rows 3000 --out sdxl.html"
)
def report(
    run: RunArgument,
    out: Annotated[str | None, typer.Option(help="default: report.html in the run folder")] = None,
    rows: Annotated[int, typer.Option(min=1, help="most rows in the gallery")] = 600,
    seed: Seed = 0,
) -> None:
    """Write one HTML file: funnel, yields, score histograms with thresholds, timings, settings, gallery."""
    from pipeline.api import open_run

    where = open_run(run).report(out, rows=rows, seed=seed)
    console.print(f"wrote {where}", soft_wrap=True)


@app.command(
    epilog="Examples:\n\n  editpairs sweep manifests/toybox.yaml --out thresholds.png\n\n"
    "  editpairs sweep manifests/toybox.yaml --set filter.default.clip_direction=0.25 --sheet boundary.png"
)
def sweep(
    manifest: Manifest,
    overrides: Set = None,
    out: Annotated[str | None, typer.Option(help="plot the curves (PNG) here")] = None,
    sheet: Annotated[str | None, typer.Option(help="draw boundary cases (PNG) here")] = None,
) -> None:
    """Show the cost of each threshold: pairs kept as one bound moves, from the stored scores."""
    from pipeline.api import load_manifest
    from pipeline.manifest.manifest import tasks_of
    from pipeline.store.location import locate
    from pipeline.store.outputs import new_file
    from pipeline.views.boundary import read_boundary
    from pipeline.views.contact_sheet import draw
    from pipeline.views.rows import bounds_of, calibrated
    from pipeline.views.run import open_state
    from pipeline.views.sweep import curves_table, plot, read_scores
    from pipeline.views.sweep import sweep as run
    from stages.filter.stage import FilterConfig

    content = load_manifest(manifest, overrides or [])
    config = content.section("filter", FilterConfig)
    state, tasks = open_state(content.folder), tasks_of(content)
    with ExitStack() as files:
        figure = files.enter_context(new_file(locate(out))) if out is not None else None
        drawn = files.enter_context(new_file(locate(sheet))) if sheet is not None else None
        curves = run(read_scores(state), tasks, config)
        if not curves:
            raise UserError(f"{content.folder} has no scores with a bound yet: run generate first")
        console.print(curves_table(curves))
        if figure is not None:
            figure.write(plot(curves))
        if drawn is not None:
            pairs = read_boundary(state, tasks, bounds_of(content, tasks), calibrated(content))
            drawn.write(draw(pairs))
    if out is not None:
        console.print(f"wrote {out}", soft_wrap=True)
    if sheet is not None:
        console.print(f"wrote {sheet}: {len(pairs)} rows next to a bound", soft_wrap=True)
