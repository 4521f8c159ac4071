"""Commands that make a run, or check whether it can be made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.app import app, console
from pipeline.cli.options import (
    EngineName,
    EngineOption,
    Manifest,
    Quiet,
    Replace,
    Set,
    Verbose,
    parse_parts,
    verbosity,
)
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.api import Run


@app.command(
    epilog="Examples:\n\n"
    "  editpairs generate toybox\n\n"
    "  editpairs generate manifests/sdxl.yaml --wave 2 --set name=trial\n\n"
    "  editpairs generate toybox --set filter.default.clip_direction=0.25 --quiet"
)
def generate(
    manifest: Manifest,
    overrides: Set = None,
    wave: Annotated[int | None, typer.Option(min=1, help="only the first N parts, all stages")] = None,
    engine: EngineOption = EngineName.ray,
    replace: Replace = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make everything that is missing or stale. After any interruption, the same command continues."""
    from pipeline.api import generate as run

    made = run(
        manifest,
        settings=overrides or [],
        wave=wave,
        engine=engine.value,
        replace=replace,
        verbosity=verbosity(quiet, verbose),
    )
    _print_status(made, quiet)


@app.command(
    epilog="Examples:\n\n"
    "  editpairs rerun toybox --stage filter --set filter.default.clip_direction=0.25\n\n"
    "  editpairs rerun toybox --stage edit --parts 0-3\n\n"
    "  editpairs rerun toybox --stage instruct --retry-failed"
)
def rerun(
    manifest: Manifest,
    stage: Annotated[str, typer.Option(help="the stage to run again")],
    parts: Annotated[
        str | None, typer.Option(metavar="A-B", help="only these parts, both ends included")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="only rows that failed")] = False,
    overrides: Set = None,
    engine: EngineOption = EngineName.ray,
    replace: Replace = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a stage again on parts that it has committed, then everything that became stale."""
    from pipeline.api import rerun as run

    made = run(
        manifest,
        stage,
        settings=overrides or [],
        parts=None if parts is None else parse_parts(parts),
        retry_failed=retry_failed,
        engine=engine.value,
        replace=replace,
        verbosity=verbosity(quiet, verbose),
    )
    _print_status(made, quiet)


def _print_status(run: "Run", quiet: bool) -> None:
    from pipeline.views.status import print_status

    if not quiet:
        print_status(run.state, console)


@app.command(
    epilog="Examples:\n\n  editpairs check toybox\n\n  editpairs check manifests/sdxl.yaml --gpus 8 --cpus 96"
    "\n\n  editpairs check manifests/sdxl.yaml --price 2.5 --pairs 10000000"
)
def check(
    manifest: Manifest,
    overrides: Set = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="check for another machine, with N GPUs")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="check for another machine, with N CPUs")] = None,
    price: Annotated[float | None, typer.Option(min=0, max=1e9, help="money for a GPU-hour")] = None,
    pairs: Annotated[
        int, typer.Option(min=1, max=10**15, help="number of kept pairs for the bill, after a pilot")
    ] = 1_000_000,
) -> None:
    """Check whether a manifest would run, and tell the bill: memory, disk, licences, GPU-hours, money."""
    from pipeline.api import chain_of, load_manifest
    from pipeline.audit.bill import Asked
    from pipeline.audit.check import Machine
    from pipeline.audit.check import check as run

    here = Machine.here()
    machine = Machine(here.cpus if cpus is None else cpus, here.gpus if gpus is None else gpus)
    content = load_manifest(manifest, overrides or [])
    elsewhere = gpus is not None or cpus is not None
    run(content, chain_of(content), machine, console, elsewhere=elsewhere, asked=Asked(pairs, price))


@app.command(
    epilog="Examples:\n\n"
    "  editpairs convert sam-vit-b sam_vit_b_01ec64.pth weights/sam-vit-b\n\n"
    "  editpairs convert groundingdino-swin-t groundingdino_swint_ogc.pth weights/groundingdino "
    "--text-encoder weights/bert-base-uncased"
)
def convert(
    model: Annotated[str, typer.Argument(help="groundingdino-swin-t or -b, sam-vit-b, -l or -h")],
    checkpoint: Annotated[Path, typer.Argument(help="the published .pth file")],
    folder: Annotated[str, typer.Argument(help="the local folder to write; a manifest names it")],
    text_encoder: Annotated[
        Path | None,
        typer.Option(help="a folder with bert-base-uncased's config and tokenizer"),
    ] = None,
) -> None:
    """Convert a published checkpoint into a folder of safetensors for a manifest."""
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
