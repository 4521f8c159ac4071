"""Commands that check the results of a run and export them."""

from enum import Enum
from typing import Annotated

import typer
from rich.text import Text

from pipeline.cli.app import app, console
from pipeline.cli.options import Out, Quiet, RunArgument, Verbose, verbosity
from pipeline.errors import UserError


class Format(str, Enum):
    datasets = "datasets"
    webdataset = "webdataset"
    magicbrush = "magicbrush"
    preference = "preference"


@app.command(
    epilog="Examples:\n\n  editpairs validate runs/toybox\n\n"
    "  editpairs validate somewhere/shards && echo fine"
)
def validate(
    path: Annotated[str, typer.Argument(metavar="RUN_OR_SHARDS", help="a run folder, or a folder of shards")],
) -> None:
    """Check a run or its shards: checksums, schema, pictures, texts, counts. Exit code 1 if a check fails."""
    from pipeline.audit.validate import validate as run
    from pipeline.store.folder import RunFolder
    from pipeline.store.location import exists, locate, reached
    from pipeline.views.pairs import shards_in
    from pipeline.views.pruned import pruned_lines
    from pipeline.views.run import near_runs, open_state

    location = locate(path)
    with reached(location):
        is_run = exists(RunFolder(location).lock)
    if is_run:
        state = open_state(location)
        publishing = [step.name for step in state.steps.values() if step.publishes]
        found = {f"{path}/{name}": run(location / name, state) for name in publishing}
    elif shards_in(location):
        found = {path: run(location, None)}
    else:
        raise UserError(f"there is no run and there are no shards at {path}{near_runs(location)}")
    for where, findings in found.items():
        console.print(where)
        console.print(findings.table())
    for line in pruned_lines(state) if is_run else ():
        console.print(line, soft_wrap=True)
    wrong = sum(len(findings.wrong) for findings in found.values())
    if wrong:
        console.print(Text(f"{wrong} of the checks found something wrong", "bold red"))
        raise typer.Exit(1)
    console.print("nothing is wrong")


@app.command(
    epilog="Examples:\n\n  editpairs audit runs/sdxl --against emu_edit_test/ MagicBrush/dev.parquet\n\n"
    "  editpairs audit runs/toybox --against held_out.parquet"
)
def audit(
    run: RunArgument,
    against: Annotated[
        list[str],
        typer.Option(
            metavar="FILES...",
            help="evaluation sets: parquet files, or folders whose parquet files are one set",
        ),
    ],
    more: Annotated[list[str] | None, typer.Argument(metavar="FILES", help="more of them")] = None,
    quiet: Quiet = False,
) -> None:
    """Find captions and pictures that a run shares with evaluation sets. The dataset card records it."""
    from pipeline.api import chain_of, open_run
    from pipeline.audit.against import audit_table, compare, learn
    from pipeline.audit.evaluation_set import open_sets
    from pipeline.audit.record import record
    from pipeline.engine.progress import Progress

    opened, progress = open_run(run), Progress(console, verbosity(quiet, False))
    learned = []
    for each in open_sets([*against, *(more or [])]):
        with progress.stage(each.name, len(each.files), each.rows) as advance:
            learned.append(learn(each, advance))
    with opened.state.folder.owned() as check:
        state = opened.state
        found = compare(state, learned)
        notes = record(found, opened.manifest, chain_of(opened.manifest), opened.tasks, state, check)
    for note in notes:
        progress.note(note)
    if not quiet:
        console.print(audit_table(found))
        console.print(f"wrote {state.folder.audit}", soft_wrap=True)


@app.command(epilog="Example:\n\n  editpairs regenerate runs/toybox 0c762de7a16ee206e313f19c605e7c66")
def regenerate(
    run: RunArgument,
    row: Annotated[str, typer.Argument(metavar="ID", help="a row's id, as shown by inspect and report")],
) -> None:
    """Make one row again and compare it with the committed row. Exit code 1 if they differ."""
    from pipeline.api import chain_of, open_run
    from pipeline.audit.regenerate import regenerate as again

    opened = open_run(run)
    manifest = opened.manifest
    equal = True
    for verdict in again(manifest, chain_of(manifest), opened.state, row):
        same = "equal to the bit" if verdict.made else "not made again"
        told = "; ".join(f"{name}: {how}" for name, how in verdict.different.items()) or same
        console.print(f"{verdict.stage:10s} {verdict.status:9s} {told}", soft_wrap=True)
        if verdict.why:
            console.print(f"{'':10s} {verdict.why}", soft_wrap=True)
        equal = equal and not verdict.different
    if not equal:
        raise typer.Exit(1)


@app.command(
    epilog="Examples:\n\n  editpairs export runs/toybox --to datasets --out toybox-dataset\n\n"
    "  editpairs export runs/sdxl --to webdataset --out sdxl-tars --test-share 0.01"
)
def export(
    run: RunArgument,
    to: Annotated[Format, typer.Option(help="the format")],
    out: Out,
    test_share: Annotated[
        float, typer.Option(min=0, max=1, help="share of captions in test, by hash")
    ] = 0.02,
    licence: Annotated[
        str, typer.Option("--license", help="the Hub's name of the licence that you give the pairs")
    ] = "other",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export the pairs of a run for training: parquet, tar files, MagicBrush's columns, preference pairs."""
    from pipeline.api import open_run
    from pipeline.engine.ledger import count_run, published
    from pipeline.engine.progress import Progress
    from pipeline.exports import Export, formats
    from pipeline.exports.counts import counts_table
    from pipeline.store.location import locate
    from pipeline.store.outputs import new_folder

    opened, progress = open_run(run), Progress(console, verbosity(quiet, verbose))
    state = opened.state
    counts = count_run(state)
    pairs, files = (
        published(state, counts),
        sum(c.units_done for c in counts if state.steps[c.name].publishes),
    )
    if not pairs:
        raise UserError(f"{run} has published no pairs yet: run generate first")
    with (
        new_folder(locate(out)) as folder,
        progress.stage(to.value, files, pairs) as advance,
    ):
        exported = Export(state, opened.manifest, opened.tasks, folder, test_share, advance, licence)
        formats()[to.value](exported)
        rows = exported.written.total()
        if not rows:
            raise UserError(f"{run} has no rows for --to {to.value}: nothing was written")
    for name in folder.names:
        progress.detail(f"{out}/{name}")
    if not quiet:
        console.print(counts_table(exported.written))
        console.print(
            f"wrote {out} ({to.value}): {rows} rows in {len(folder.names) - 1} files", soft_wrap=True
        )


@app.command(
    epilog="Examples:\n\n  editpairs publish toybox-dataset me/toybox-pairs --dry-run\n\n"
    "  editpairs publish toybox-dataset me/toybox-pairs --private"
)
def publish(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="a folder that export wrote")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="a dataset repository on the Hub")],
    private: Annotated[bool, typer.Option("--private", help="make a new repository private")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check the folder and send nothing")] = False,
    quiet: Quiet = False,
) -> None:
    """Send an export to the Hugging Face Hub. After an interruption the same command goes on."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    from pipeline.exports.folder import read_export
    from pipeline.exports.upload import check_repository, send
    from pipeline.store.location import locate

    check_repository(repository)
    export = read_export(locate(folder))
    if not quiet:
        console.print(export.table())
        if export.licence == "other":
            console.print("the card names no licence: give export --license, such as cc-by-4.0")
    if dry_run:
        console.print(f"{len(export.names)} files would go to {constants.ENDPOINT}/datasets/{repository}")
        return
    if quiet:
        disable_progress_bars()
    where = send(export, repository, private)
    if not quiet:
        console.print(f"published {where}", soft_wrap=True)
