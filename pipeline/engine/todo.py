"""What a step has to do: the units that are missing, stale, asked for again, or pruned and needed whole."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.engine.jobs import Unit
from pipeline.engine.opened import Run
from pipeline.engine.pruning import lacking
from pipeline.engine.reuse import remembers
from pipeline.manifest.steps import Step


@dataclass(frozen=True)
class Forced:
    """Units of a stage that run again although they are done."""

    stage: str
    units: frozenset[int]
    retry_failed: bool


def units_to_run(
    run: Run, step: Step, parts: Sequence[int], forced: Forced | None, whole: Collection[int] = ()
) -> list[Unit]:
    """The units of a step that run; ``whole`` are those that run if they are pruned."""
    todo = []
    for number in sorted({*step.units(parts), *whole}):
        readable = run.state.readable(step, number)
        if not readable:
            continue
        done, footer = run.state.done(step, number), run.state.footer(step, number)
        pruned = footer is not None and footer.pruned is not None
        again = forced is not None and forced.stage == step.name and number in forced.units
        if again or not done or (pruned and number in whole):
            # The records of a pruned file lack columns: none of them can be taken over.
            retry = again and done and not pruned and forced is not None and forced.retry_failed
            same = footer is not None and footer.fingerprint == step.fingerprint and not pruned
            reuse = same and not again and remembers(step)
            todo.append(Unit(number, tuple(readable), retry and not step.publishes, reuse))
    return todo


def pruned_inputs(run: Run, step: Step, units: Sequence[Unit]) -> dict[str, set[int]]:
    """The pruned files, by step, that lack a column which these units read."""
    parts = run.state.all_readable(step) if step.wide and units else [p for unit in units for p in unit.parts]
    missing: dict[str, set[int]] = defaultdict(set)
    for part in parts:
        for name in lacking(run.state, run.stages[step.name], part):
            missing[name].add(part)
    return missing
