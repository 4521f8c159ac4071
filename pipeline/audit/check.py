"""``editpairs check``: what is known of a run before it starts, and its bill.

It reads the manifest, the files named there, and the results of a pilot run (``--wave 1``).
:mod:`pipeline.engine.preflight` finds problems that would stop the run. No model is loaded and nothing is
written.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.audit.bill import Asked, print_bill
from pipeline.audit.licences import licence_table
from pipeline.audit.memory import memory_table
from pipeline.engine.preflight import Machine, judged_by, problems
from pipeline.engine.ray_start import cluster_problems
from pipeline.errors import UserError
from pipeline.inputs.rows import read_input
from pipeline.manifest.fingerprint import check_made_for, identities_of, models_of
from pipeline.manifest.manifest import Manifest, tasks_of
from pipeline.shown import DataTable
from stages.placed import Chain


def check(
    manifest: Manifest,
    stages: Chain,
    machine: Machine,
    console: Console,
    *,
    elsewhere: bool = False,
    asked: Asked | None = None,
) -> None:
    """Print the stages, their models with licences, memory, and the bill.

    ``elsewhere``: the run starts on another machine, so this one need not reach the Ray cluster.

    Raises:
        UserError: ``generate`` could not start. The message lists every reason, one per line.
    """
    found = problems(manifest, stages, judged_by(manifest, machine))
    if not elsewhere:
        found += cluster_problems(manifest.ray)
    captions = 0
    try:
        captions = len(read_input(manifest.captions)[0])
    except UserError as error:
        found.insert(0, str(error))
    if found:
        raise UserError("\n".join(dict.fromkeys(found)))
    tasks = tasks_of(manifest)
    identities = identities_of(stages, manifest.configs(stages), tasks)
    check_made_for(manifest.configs(stages), identities)
    planned = captions * manifest.repeats if manifest.rows is None else manifest.rows
    what = "pictures" if manifest.captions.column is None else "captions"
    console.print(Text.assemble((manifest.name, "bold"), f": {captions} {what}, up to {planned} edits"))
    console.print(_model_table(identities))
    console.print("Memory of a worker by counting, without CUDA's own; the VAE decodes in chunks that fit:")
    console.print(memory_table(stages, manifest.configs(stages), tasks))
    console.print("Licences, for orientation; each model's card and licence count:")
    console.print(licence_table(manifest.configs(stages).values()))
    print_bill(manifest, stages, identities, planned, asked or Asked(), console)


def _model_table(identities: Mapping[str, Mapping[str, Any]]) -> DataTable:
    """A table of models: manifest key, and hub name with revision or hash of the files."""
    table = DataTable("model", "identity", box=None, header_style="bold", pad_edge=False)
    for key, value in models_of(identities.values()).items():
        table.add_row(key, value)
    return table
