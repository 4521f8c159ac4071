"""``editpairs train-predictor``."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.app import app, console
from pipeline.errors import UserError
from pipeline.shown import DataTable, plain_table

if TYPE_CHECKING:
    from editor.predictor.data import Confusion


class Precision(str, Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


@app.command(
    epilog="Example:\n\n  editpairs train-predictor runs/sdxl --base google/flan-t5-xl --precision bfloat16 "
    "--out weights/task-predictor"
)
def train_predictor(
    pairs: Annotated[
        list[str], typer.Argument(metavar="PAIRS...", help="runs, exports, folders of shards, or shards")
    ],
    base: Annotated[
        str, typer.Option(help="the model to begin from: a T5 or an encoder; a folder or hub name")
    ],
    out: Annotated[str, typer.Option(metavar="PATH", help="a new local folder")],
    epochs: Annotated[float, typer.Option(min=0.01, max=1000)] = 3.0,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="instructions a step")] = 32,
    learning_rate: Annotated[float, typer.Option(min=1e-8, max=1)] = 1e-4,
    precision: Annotated[Precision, typer.Option()] = Precision.float32,
    test_share: Annotated[
        float, typer.Option(min=0, max=1, help="share of the captions held out, as in editpairs export")
    ] = 0.02,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    prompts: Annotated[str, typer.Option(help="the task files, which name the tasks")] = "prompts",
) -> None:
    """Train a task predictor on the instructions of pairs.

    After any interruption, the same command continues.
    """
    import shutil
    from pathlib import Path

    from editor.predictor.data import read_instructions
    from pipeline.store.location import is_local, locate
    from pipeline.store.lock import held
    from stages.shipped import resolve
    from stages.tasks import TaskError, load_tasks

    target = Path(out)
    if not is_local(locate(out)):
        raise UserError(f"--out {out}: a predictor is written to a local folder")
    if target.exists():
        raise UserError(f"--out {out}: the path exists already; name a new folder, or delete that one")
    try:
        tasks = load_tasks(resolve(Path(prompts)))
    except TaskError as error:
        raise UserError(f"--prompts: {error}") from error
    train, held_out = read_instructions(pairs, test_share, tasks)
    count, tasks_used, held_count = len(train.texts), len(train.names), len(held_out.texts)
    console.print(f"{count} instructions of {tasks_used} tasks to train on, {held_count} held out")
    try:
        from editor.predictor.train import Settings, confusion
        from editor.predictor.train import train_predictor as run
    except ImportError as error:
        raise UserError(f"{error}: install editpairs[editor]") from error
    work = target.with_name(f"{target.name}.training")
    with held(work):
        settings = Settings(base, epochs, batch, learning_rate, precision.value, seed)
        made = run(work, train, settings, console)
        found = confusion(made, held_out)
        made.rename(target)
    shutil.rmtree(work)
    if held_out.texts:
        console.print("held-out captions: a line for each true task, a column for each predicted one")
        console.print(_table(found))
        console.print(f"right: {found.right:.3f} of {len(held_out.texts)}")
    console.print(f"wrote {out}: task_check.predictor.model={out}, or edit --predictor {out}", soft_wrap=True)


def _table(found: "Confusion") -> DataTable:
    predicted = [*found.names, *([""] if any(not name for _, name in found.counts) else [])]
    table = plain_table("", *(name or "unreadable" for name in predicted))
    for name in found.names:
        table.add_row(name, *(str(found.counts[name, other] or ".") for other in predicted))
    return table
