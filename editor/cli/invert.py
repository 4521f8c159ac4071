"""``editpairs invert``."""

import re
from typing import Annotated

import typer

from editor.cli.options import Model
from pipeline.cli.app import app, console
from pipeline.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@app.command(
    epilog="Examples:\n\n  editpairs invert weights/editor watercolour examples/ "
    "--instruction 'paint it in watercolour'\n\n"
    "  editpairs edit weights/editor picture.png 'paint it in watercolour' --task watercolour"
)
def invert(
    model: Model,
    name: Annotated[str, typer.Argument(metavar="NAME", help="the new task's name")],
    examples: Annotated[
        str, typer.Argument(metavar="EXAMPLES", help="a folder with before/ and after/, or parquet")
    ],
    instruction: Annotated[str | None, typer.Option(help="of examples that have none of their own")] = None,
    index: Annotated[int | None, typer.Option(min=0, help="its index (TI); default: the next free")] = None,
    steps: Annotated[int, typer.Option(min=1, max=1_000_000)] = 500,
    batch: Annotated[int, typer.Option(min=1, max=512, help="examples a step")] = 8,
    learning_rate: Annotated[
        float, typer.Option(min=1e-6, max=1, help="a step, as a share of the usual norm of a task's vector")
    ] = 0.03,
    norm_penalty: Annotated[
        float, typer.Option(min=0, help="against a vector that grows beyond the others")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    prompts: Annotated[
        str, typer.Option(help="task files, whose indices the new task leaves alone")
    ] = "prompts",
) -> None:
    """Teach an editor a new task from 1 to 100 example pairs. Only its table of tasks gets a new row."""
    from pathlib import Path

    from editor.inversion.learn import Progress, Settings, learn_vector
    from editor.inversion.pairs import read_example_pairs
    from editor.inversion.save import free_index, replace_table
    from editor.model.loading import load_editor
    from pipeline.store.lock import held
    from stages.base import Weights
    from stages.tasks import TaskError, load_tasks

    weights = Weights(model=model)
    if weights.path is None:
        raise UserError(f"{model}: the new task is written into the editor's folder; download it first")
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a task: use letters, digits, '.', '_' and '-'")
    try:
        reserved = {task.name: task.index for task in load_tasks(Path(prompts)).values()}
    except TaskError as error:
        raise UserError(f"--prompts: {error}") from error

    def told(progress: Progress) -> None:
        console.print(
            f"{progress.step}/{steps}  loss {progress.loss:.4f}  norm {progress.norm:.2f} of the others'"
        )

    with held(weights.path):
        network = load_editor(weights)
        if name in network.table.names:
            raise UserError(f"there is a task {name!r} already; {network.table.listed()}")
        chosen = free_index(network.table, name, reserved, index)
        pairs = read_example_pairs(examples, instruction, network.multiple)
        console.print(f"{name} ({chosen}): {len(pairs)} example pairs")
        settings = Settings(steps, batch, learning_rate, norm_penalty, seed)
        vector = learn_vector(network, pairs, settings, told)
        replace_table(weights.path, network.table.with_task(name, chosen, vector))
    console.print(
        f"{model} has the task {name}: editpairs edit {model} PICTURE ... --task {name}", soft_wrap=True
    )
