"""The command ``editpairs``. Everything heavy is imported by the command that needs it."""

import re
import signal
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from pipeline.errors import StageError, UserError, describe, input_output_error
from pipeline.interrupts import heeded, received
from pipeline.shown import Terminal, terminal

if TYPE_CHECKING:
    from pipeline.engine.state import RunState
    from pipeline.store.location import Location


class Commands(TyperGroup):
    """Every way a command can end has an exit code and at most one message.

    2 for an error of the user or of a file, 1 for a stopped stage, after a signal 128 and its number. Said
    here, because Typer ends a process on KeyboardInterrupt and SystemExit without a word.
    """

    def invoke(self, ctx: Any) -> Any:
        errors = Terminal(stderr=True, soft_wrap=True)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            errors.print("\nstopped; what was committed stays, and the same command goes on from there")
            raise typer.Exit(128 + (received() or signal.SIGINT)) from None
        except (UserError, StageError) as error:
            ending: UserError | StageError = error
        except BrokenPipeError:
            raise  # the reader has gone, as of `| head`: Typer ends quietly
        except OSError as error:
            ending = input_output_error(error)
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):
                raise  # rich's answer to it
            ending = StageError(f"stopped: code of a stage or library ended the process ({describe(error)})")
        errors.print(Text("error:", "bold red"), end=" ")
        errors.print(str(ending))
        if isinstance(ending, StageError):
            errors.print("What was committed stays; the same command goes on from there.")
            if ending.details:
                errors.print("The traceback is in last_error.txt in the run's folder.")
        raise typer.Exit(ending.exit_code)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Captions in, a training set for instruction-based image editing out.",
)
console = terminal()


class EngineName(str, Enum):
    ray = "ray"
    local = "local"


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="a run's folder")]
Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="the YAML file of a run")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a key of the manifest; may be repeated"),
]
EngineOption = Annotated[
    EngineName, typer.Option(help="ray: all workers and GPUs; local: a plain loop, for a debugger")
]
Out = Annotated[str, typer.Option("--out", metavar="PATH_OR_URL", help="a new folder, on a disk or s3://")]
Replace = Annotated[bool, typer.Option("--replace", help="allow committed parts to be made again")]


@app.command(
    epilog="Examples:\n\n"
    "  editpairs generate manifests/toybox.yaml\n\n"
    "  editpairs generate manifests/sdxl.yaml --wave 2 --set name=trial\n\n"
    "  editpairs generate manifests/toybox.yaml --set filter.default.clip_direction=0.25"
)
def generate(
    manifest: Manifest,
    overrides: Set = None,
    wave: Annotated[int | None, typer.Option(min=1, help="only the first N parts, all stages")] = None,
    engine: EngineOption = EngineName.ray,
    replace: Replace = False,
) -> None:
    """Run what is missing or stale. The same command goes on after any interruption."""
    from pipeline.engine.generate import generate as run
    from pipeline.engine.progress import Progress
    from pipeline.manifest.manifest import read_manifest
    from pipeline.views.status import print_report
    from stages import STAGES
    from stages.sessions.turns import unrolled

    content = read_manifest(manifest, overrides or [], STAGES)
    stages = unrolled(content.turns)
    state = run(content, stages, progress=Progress(console), wave=wave, engine=engine.value, replace=replace)
    state.scan()
    print_report(state, console)


@app.command(
    epilog="Examples:\n\n"
    "  editpairs rerun manifests/toybox.yaml --stage filter --set filter.default.clip_direction=0.25\n\n"
    "  editpairs rerun manifests/toybox.yaml --stage edit --parts 0-3\n\n"
    "  editpairs rerun manifests/toybox.yaml --stage instruct --retry-failed"
)
def rerun(
    manifest: Manifest,
    stage: Annotated[str, typer.Option(help="the stage to run again")],
    parts: Annotated[str | None, typer.Option(metavar="A-B", help="only these parts, both included")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="only rows that failed")] = False,
    overrides: Set = None,
    engine: EngineOption = EngineName.ray,
    replace: Replace = False,
) -> None:
    """Run a stage again on the parts it has committed, then whatever became stale."""
    from pipeline.engine.generate import rerun as run
    from pipeline.engine.progress import Progress
    from pipeline.manifest.manifest import read_manifest
    from pipeline.views.status import print_report
    from stages import STAGES
    from stages.sessions.turns import unrolled

    content = read_manifest(manifest, overrides or [], STAGES)
    state = run(
        content,
        unrolled(content.turns),
        stage,
        progress=Progress(console),
        parts=parse_parts(parts) if parts else None,
        retry_failed=retry_failed,
        engine=engine.value,
        replace=replace,
    )
    state.scan()
    print_report(state, console)


@app.command(
    epilog="Examples:\n\n  editpairs check manifests/toybox.yaml\n\n"
    "  editpairs check manifests/sdxl.yaml --gpus 8 --cpus 96"
)
def check(
    manifest: Manifest,
    overrides: Set = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="of the machine; default: of this one")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="of the machine; default: of this one")] = None,
) -> None:
    """Whether a manifest would run: keys, files, models, resources. After a pilot: what it will cost."""
    from pipeline.audit.check import Machine
    from pipeline.audit.check import check as run
    from pipeline.manifest.manifest import read_manifest
    from stages import STAGES
    from stages.sessions.turns import unrolled

    here = Machine.here()
    machine = Machine(here.cpus if cpus is None else cpus, here.gpus if gpus is None else gpus)
    content = read_manifest(manifest, overrides or [], STAGES)
    run(content, unrolled(content.turns), machine, console)


@app.command(epilog="Examples:\n\n  editpairs status runs/toybox\n\n  editpairs status runs/toybox --watch")
def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="a live table, until the run is done")] = False,
) -> None:
    """Where every planned row of a run is, from the files' footers alone."""
    from pipeline.views.status import print_report
    from pipeline.views.watch import watch as watch_run

    state = open_state(run)
    if watch:
        watch_run(state, console)
    else:
        state.scan()
        print_report(state, console)


@app.command(
    epilog="Examples:\n\n  editpairs cost runs/toybox\n\n"
    "  editpairs generate manifests/sdxl.yaml --wave 1 && editpairs cost runs/sdxl --pairs 10000000"
)
def cost(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run's folder; a pilot (--wave 1) will do")],
    pairs: Annotated[int, typer.Option(min=1, help="how many kept pairs to reckon for")] = 1_000_000,
) -> None:
    """What the kept pairs of a run took, stage by stage, and what more of them would take."""
    from pipeline.views.cost import measure, table_of

    state = open_state(run)
    state.scan()
    measured = measure(state)
    if not measured.pairs:
        raise UserError(f"{run} has no pairs yet: run generate --wave 1 first")
    console.print(table_of(measured, pairs))
    seconds, gpu_seconds = measured.total.wall_seconds, measured.total.gpu_seconds
    console.print(
        f"{measured.pairs} pairs in {seconds:.0f} s: {measured.pairs / seconds:.2f} pairs a second, "
        f"{gpu_seconds / measured.pairs:.2f} GPU-seconds a kept pair"
    )


@app.command(
    epilog="Examples:\n\n  editpairs inspect runs/toybox --out sheet.png\n\n"
    "  editpairs inspect runs/toybox/shards/train-00000-of-00002.parquet --rows 24 --seed 3"
)
def inspect(
    path: Annotated[str, typer.Argument(metavar="SHARD_OR_RUN", help="a shard, or a run's folder")],
    out: Annotated[str | None, typer.Option(help="write a contact sheet (PNG) here")] = None,
    rows: Annotated[int, typer.Option(min=1, help="how many pairs")] = 12,
    seed: Annotated[int, typer.Option(help="which pairs are drawn")] = 0,
    task: Annotated[str | None, typer.Option(help="only pairs of this task")] = None,
) -> None:
    """Look at pairs: a table, and a contact sheet of input, mask, target, instruction and scores."""
    from pipeline.store.location import locate
    from pipeline.store.outputs import new_file
    from pipeline.views.contact_sheet import draw
    from pipeline.views.pairs import read_pairs, table_of

    location = locate(path)
    if not location.exists():
        raise UserError(f"there is no run or shard at {path}")
    with ExitStack() as files:
        sheet = files.enter_context(new_file(locate(out))) if out is not None else None
        pairs = read_pairs(location, rows, seed, task)
        if not pairs:
            raise UserError(f"{path} holds no pairs" + (f" of task {task}" if task else " yet"))
        console.print(table_of(pairs))
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
    out: Annotated[str | None, typer.Option(help="default: report.html in the run's folder")] = None,
    rows: Annotated[int, typer.Option(min=1, help="of the gallery, at most")] = 600,
    seed: Annotated[int, typer.Option(help="which rows are drawn")] = 0,
) -> None:
    """One HTML file: funnel, yields, score histograms with thresholds, timings, settings, a gallery."""
    from pipeline.manifest.lockfile import locked_manifest
    from pipeline.manifest.manifest import tasks_of
    from pipeline.store.location import locate
    from pipeline.store.outputs import new_file
    from pipeline.views.report import report_page
    from stages import STAGES
    from stages.filter.stage import resolve_bounds

    state = open_state(run)
    manifest = locked_manifest(state.folder.lock, STAGES)
    config: Any = manifest.section("filter")
    tasks = tasks_of(manifest)
    bounds = {name: resolve_bounds(task, config) for name, task in tasks.items()}
    where = state.folder.root / "report.html" if out is None else locate(out)
    with new_file(where) as file:
        state.scan()
        page, number = report_page(state, tasks, bounds, rows, seed)
        file.write(page.encode("utf-8"))
    console.print(f"wrote {where}: {number} rows to look at", soft_wrap=True)


@app.command(epilog="Example:\n\n  editpairs regenerate runs/toybox 0c762de7a16ee206e313f19c605e7c66")
def regenerate(
    run: RunArgument,
    row: Annotated[str, typer.Argument(metavar="ID", help="a row's id, as inspect and report show it")],
) -> None:
    """Make one row again alone and compare it with what is committed. Exit code 1 if it differs."""
    from pipeline.audit.regenerate import regenerate as again
    from pipeline.manifest.lockfile import locked_manifest
    from stages import STAGES
    from stages.sessions.turns import unrolled

    state = open_state(run)
    manifest = locked_manifest(state.folder.lock, STAGES)
    equal = True
    for verdict in again(manifest, unrolled(manifest.turns), state, row):
        told = "; ".join(f"{name}: {how}" for name, how in verdict.different.items()) or "equal to the bit"
        console.print(f"{verdict.stage:10s} {verdict.status:9s} {told}", soft_wrap=True)
        if verdict.why:
            console.print(f"{'':10s} {verdict.why}", soft_wrap=True)
        equal = equal and not verdict.different
    if not equal:
        raise typer.Exit(1)


@app.command(
    epilog="Examples:\n\n  editpairs validate runs/toybox\n\n"
    "  editpairs validate somewhere/shards && echo fine"
)
def validate(
    path: Annotated[str, typer.Argument(metavar="RUN_OR_SHARDS", help="a run's folder, or one of shards")],
) -> None:
    """Check a run or its shards: checksums, schema, pictures, texts, counts. Exit code 1 if any is wrong."""
    from pipeline.audit.validate import validate as run
    from pipeline.store.folder import RunFolder
    from pipeline.store.location import locate

    location = locate(path)
    if RunFolder(location).lock.exists():
        state = open_state(location)
        publishing = [step.name for step in state.steps.values() if step.parts_per_unit is not None]
        found = {f"{path}/{name}": run(location / name, state) for name in publishing}
    elif any(location.glob("train-*.parquet")):
        found = {path: run(location, None)}
    else:
        raise UserError(f"there is no run and there are no shards at {path}")
    for where, findings in found.items():
        console.print(where)
        console.print(findings.table())
    wrong = sum(len(findings.wrong) for findings in found.values())
    if wrong:
        console.print(Text(f"{wrong} of the checks found something wrong", "bold red"))
        raise typer.Exit(1)
    console.print("nothing is wrong")


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
    """What each threshold costs: pairs kept as one bound moves, from the run's stored scores."""
    from pipeline.manifest.manifest import read_manifest, tasks_of
    from pipeline.store.location import locate
    from pipeline.store.outputs import new_file
    from pipeline.views.boundary import read_boundary
    from pipeline.views.contact_sheet import draw
    from pipeline.views.sweep import plot, read_scores, table_of
    from pipeline.views.sweep import sweep as run
    from stages import STAGES
    from stages.filter.stage import resolve_bounds

    content = read_manifest(manifest, overrides or [], STAGES)
    config: Any = content.section("filter")
    state, tasks = open_state(content.folder), tasks_of(content)
    with ExitStack() as files:
        figure = files.enter_context(new_file(locate(out))) if out is not None else None
        drawn = files.enter_context(new_file(locate(sheet))) if sheet is not None else None
        curves = run(read_scores(state), tasks, config)
        if not curves:
            raise UserError(f"{content.folder} has no scores with a bound yet: run generate first")
        console.print(table_of(curves))
        if figure is not None:
            figure.write(plot(curves))
        if drawn is not None:
            bounds = {name: resolve_bounds(task, config) for name, task in tasks.items()}
            pairs = read_boundary(state, tasks, bounds)
            drawn.write(draw(pairs))
    if out is not None:
        console.print(f"wrote {out}", soft_wrap=True)
    if sheet is not None:
        console.print(f"wrote {sheet}: {len(pairs)} rows next to a bound", soft_wrap=True)


class Format(str, Enum):
    datasets = "datasets"
    webdataset = "webdataset"
    magicbrush = "magicbrush"
    preference = "preference"


@app.command(
    epilog="Examples:\n\n  editpairs export runs/toybox --to datasets --out toybox-dataset\n\n"
    "  editpairs export runs/sdxl --to webdataset --out sdxl-tars --test-share 0.01"
)
def export(
    run: RunArgument,
    to: Annotated[Format, typer.Option(help="the layout")],
    out: Out,
    test_share: Annotated[float, typer.Option(min=0, max=1, help="of the captions, by their hash")] = 0.02,
) -> None:
    """The pairs of a run for training code: parquet with splits, tars, MagicBrush's columns, preferences."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from pipeline.engine.ledger import count_run, published
    from pipeline.exports import Export, formats
    from pipeline.manifest.lockfile import locked_manifest
    from pipeline.manifest.manifest import tasks_of
    from pipeline.store.location import locate
    from pipeline.store.outputs import new_folder
    from stages import STAGES

    state = open_state(run)
    manifest = locked_manifest(state.folder.lock, STAGES)
    pairs = published(state, count_run(state))
    if not pairs:
        raise UserError(f"{run} has published no pairs yet: run generate first")
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with (
        new_folder(locate(out)) as folder,
        Progress(*columns, console=console, transient=True, disable=hidden) as bar,
    ):
        shown = bar.add_task("", total=pairs)
        exported = Export(
            state, manifest, tasks_of(manifest), folder, test_share, lambda rows: bar.advance(shown, rows)
        )
        formats()[to.value](exported)
        rows = exported.written.total()
        if not rows:
            raise UserError(f"{run} has no rows for --to {to.value}: nothing was written")
    console.print(f"wrote {out} ({to.value}): {rows} rows", soft_wrap=True)


@app.command(
    epilog="Examples:\n\n"
    "  editpairs convert sam-vit-b sam_vit_b_01ec64.pth weights/sam-vit-b\n\n"
    "  editpairs convert groundingdino-swin-t groundingdino_swint_ogc.pth weights/groundingdino "
    "--text-encoder weights/bert-base-uncased"
)
def convert(
    model: Annotated[str, typer.Argument(help="groundingdino-swin-t or -b, sam-vit-b, -l or -h")],
    checkpoint: Annotated[Path, typer.Argument(help="the published .pth file")],
    folder: Annotated[str, typer.Argument(help="what to write, on a disk; a manifest names it")],
    text_encoder: Annotated[
        Path | None,
        typer.Option(help="a folder with bert-base-uncased's config and tokenizer"),
    ] = None,
) -> None:
    """Turn a published checkpoint into a folder of safetensors that a manifest can name."""
    from safetensors import SafetensorError

    from pipeline.store.location import is_local, locate
    from stages.models import convert as conversion

    if model not in {**conversion.GROUNDING, **conversion.SEGMENTERS}:
        known = ", ".join([*conversion.GROUNDING, *conversion.SEGMENTERS])
        raise UserError(f"{model}: the models are {known}")
    where = locate(folder)
    if not is_local(where):
        raise UserError(f"{folder}: weights are read from a disk; name a folder there")
    try:
        where.mkdir(parents=True, exist_ok=True)
        if model in conversion.SEGMENTERS:
            left = conversion.convert_segmenter(checkpoint, where, conversion.SEGMENTERS[model])
        elif text_encoder is None:
            raise UserError("GroundingDINO needs --text-encoder, a folder with bert-base-uncased's files")
        else:
            architecture = conversion.GROUNDING[model]
            left = conversion.convert_grounding(checkpoint, text_encoder, where, architecture)
    except conversion.CheckpointError as error:
        raise UserError(str(error)) from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be written: {error}") from error
    rest = f"; {len(left)} tensors that it does not need were left out" if left else ""
    console.print(f"wrote {folder}{rest}", soft_wrap=True)


def open_state(folder: "str | Location") -> "RunState":
    """The state of a run as its lock file tells it, without importing a stage."""
    from pipeline.engine.state import RunState
    from pipeline.manifest.lockfile import locked_steps, read_lock
    from pipeline.store.folder import RunFolder
    from pipeline.store.plan import read_plan

    run = RunFolder(folder)
    plan = read_plan(run.plan)
    lock = read_lock(run.lock)
    if plan is None or not lock:
        raise UserError(f"there is no run at {folder}: name a run's folder, such as runs/toybox")
    return RunState(run, plan, locked_steps(lock))


def parse_parts(text: str) -> range:
    """``"3"`` or ``"0-4"``, both ends included."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match:
        raise UserError(f"--parts {text}: write a part or a range, such as 0-4")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UserError(f"--parts {text}: the range is empty")
    return range(first, last + 1)


def main() -> None:
    """The console command."""
    with heeded():
        app()


if __name__ == "__main__":
    main()
