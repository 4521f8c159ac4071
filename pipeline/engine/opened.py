"""An open run: checked, planned, and locked by this process until it is closed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.engine.preflight import Machine, check_light_stages, judged_by, problems
from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.inputs.planning import ensure_plan
from pipeline.manifest.fingerprint import check_made_for, fingerprint, identities_of
from pipeline.manifest.manifest import Manifest, tasks_of
from pipeline.manifest.steps import Step, build_steps
from pipeline.store.folder import RunFolder
from pipeline.store.location import exists, reached
from pipeline.store.lock import Check
from pipeline.store.plan import Plan
from stages.placed import Chain
from stages.tasks import Tasks

Engine = Literal["ray", "local"]
"""Where stages that are not light run: on Ray's workers, or in a plain loop in this process."""


@dataclass(frozen=True)
class Run:
    """An open run: checked, planned, and locked by this process."""

    manifest: Manifest
    stages: Chain
    tasks: Tasks
    identities: Mapping[str, Mapping[str, Any]]
    folder: RunFolder
    plan: Plan
    steps: tuple[Step, ...]
    state: RunState
    check: Check
    """Raises if this process no longer holds the lock."""
    fresh: bool
    """Whether the run was planned just now."""


@contextmanager
def opened(manifest: Manifest, stages: Chain, engine: Engine) -> Iterator[Run]:
    """Run all checks that are possible before the start, then lock the run and read its plan.

    Raises:
        UserError: the input is wrong; nothing was run.
    """
    with reached(manifest.folder):
        fresh = not exists(RunFolder(manifest.folder).plan)
    if fresh:
        check_before(manifest, stages, engine)
    tasks = tasks_of(manifest)
    configs = manifest.configs(stages)
    check_light_stages(stages, configs, tasks)
    identities = identities_of(stages, configs, tasks)
    check_made_for(configs, identities)
    steps = build_steps(stages, configs, {name: fingerprint(identities[name]) for name in stages})
    folder = RunFolder(manifest.folder)
    with reached(folder.root), folder.owned() as check:
        plan = ensure_plan(folder, manifest)
        state = RunState(folder, plan, steps)
        state.scan()
        yield Run(manifest, stages, tasks, identities, folder, plan, tuple(steps), state, check, fresh)


def check_before(manifest: Manifest, stages: Chain, engine: Engine) -> None:
    """List all problems that would stop these stages, before any runs. The local engine ignores resources."""
    machine = judged_by(manifest, Machine.here()) if engine == "ray" else None
    if found := problems(manifest, stages, machine):
        raise UserError("\n".join(found))
