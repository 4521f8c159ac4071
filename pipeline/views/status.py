"""Tables about a run: the funnel per stage and per task, and the reasons of rejected and failed rows."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from pipeline.engine.ledger import StageCount, count_run, published
from pipeline.engine.state import RunState
from pipeline.shown import DataTable, Terminal, brief, plain_table
from pipeline.store import events
from pipeline.store.events import Spent
from pipeline.views.pruned import pruned_lines
from pipeline.views.rounds import count_rounds, rounds_table

REASONS_A_STAGE = 12


def print_status(state: RunState, console: Terminal) -> None:
    """Print how many rows are where, what the stages cost, and where the shards lie."""
    counts = count_run(state)
    spent = events.spent(state.folder.events)
    plan = state.plan
    console.print(
        Text.assemble(
            "\n",
            (str(state.folder.root), "bold"),
            f": {plan.captions} captions, {plan.duplicates} duplicates, {plan.rows} planned edits in "
            f"{plan.parts} parts",
        ),
        soft_wrap=True,
    )
    console.print(_stage_table(counts, spent))
    console.print(_task_table(counts, state))
    if rounds := count_rounds(state, counts, spent):
        console.print(rounds_table(rounds))
    if any(count.reasons for count in counts):
        console.print(_reason_table(counts))
    _print_pairs(state, counts, spent, console)
    for line in pruned_lines(state):
        console.print(line, soft_wrap=True)
    for error in state.damaged.values():
        console.print(f"{error}; generate makes it again", soft_wrap=True)


def _stage_table(counts: Sequence[StageCount], spent: Mapping[str, Spent]) -> DataTable:
    table = plain_table(
        "stage", "parts", "given", "kept", "rejected", "failed", "pending", "seconds", "CPU-s", "GPU-s"
    )
    for count in counts:
        took = spent[count.name]
        rows = (count.given, count.kept, count.rejected, count.failed, count.pending)
        table.add_row(
            count.name,
            f"{count.units_done}/{count.units}",
            *(str(counter.total()) for counter in rows),
            *(f"{s:.1f}" for s in (took.wall_seconds, took.cpu_seconds, took.gpu_seconds)),
        )
    return table


def _task_table(counts: Sequence[StageCount], state: RunState) -> DataTable:
    """Rows kept by each stage, by task.

    The first column counts planned rows; for later turns, published rows; for later rounds, the rows that
    the filter kept.
    """
    names = {
        step.name
        for step in state.steps.values()
        if step.publishes or (step.turn == 1 and (step.round == 1 or step.stage == "filter"))
    }
    shown = [count for count in counts if count.name in names]
    table = plain_table("task", "planned", *(count.name for count in shown), "failed", "pending")
    for task in counts[0].given:
        table.add_row(
            task,
            str(counts[0].given[task]),
            *(str(count.kept[task]) for count in shown),
            str(sum(count.failed[task] for count in counts)),
            str(sum(count.pending[task] for count in counts)),
        )
    return table


def _reason_table(counts: Sequence[StageCount]) -> DataTable:
    table = plain_table("stage", "status", "reason", "rows", text=3)
    for count in counts:
        ordered = sorted(count.reasons.items(), key=lambda item: (-item[1], item[0]))
        for (status, reason), rows in ordered[:REASONS_A_STAGE]:
            table.add_row(count.name, status, brief(reason), str(rows))
        rest = ordered[REASONS_A_STAGE:]
        if rest:
            table.add_row(count.name, "", f"({len(rest)} other reasons)", str(sum(n for _, n in rest)))
    return table


def _print_pairs(
    state: RunState, counts: Sequence[StageCount], spent: Mapping[str, Spent], console: Terminal
) -> None:
    publishing = [count for count in counts if state.steps[count.name].publishes]
    files = sum(count.units_done for count in publishing)
    if not files:
        console.print("No shards yet.")
        return
    pairs, names = published(state, counts), [count.name for count in publishing]
    where = f"{state.folder.root}/{names[0] if len(names) == 1 else '{' + ','.join(names) + '}'}"
    seconds = sum(stage.wall_seconds for stage in spent.values())
    rate = f", {60 * pairs / seconds:.1f} pairs a minute" if seconds else ""
    console.print(
        Text.assemble(
            (f"{pairs} pairs", "bold"),
            f" in {files} shards: {where}/train-*.parquet ({seconds:.1f} s in all{rate})",
        ),
        soft_wrap=True,
    )
