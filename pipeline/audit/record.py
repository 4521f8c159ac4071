"""Recording an audit in its run: ``audit.json``, and the dataset card with its checksum."""

from pipeline.engine.opened import Run
from pipeline.engine.publish import publish
from pipeline.engine.state import RunState
from pipeline.manifest.lockfile import read_lock
from pipeline.manifest.manifest import Manifest
from pipeline.store.audits import Audit, write_audit
from pipeline.store.lock import Check
from stages.placed import Chain
from stages.tasks import Tasks


def record(
    audit: Audit, manifest: Manifest, stages: Chain, tasks: Tasks, state: RunState, check: Check
) -> list[str]:
    """Write the audit, and the card of what the run has published. Returns messages for the user.

    Args:
        manifest, stages, tasks: of the run's last generate.
        state: the run, whose lock this process holds.
        check: raises if it does no longer.

    Raises:
        UserError: a file of the run cannot be read or written.
    """
    write_audit(state.folder.audit, audit)
    known = read_lock(state.folder.lock).get("identities", {})
    identities = {step.name: known.get(step.fingerprint, {}) for step in state.steps.values()}
    steps = tuple(state.steps.values())
    run = Run(manifest, stages, tasks, identities, state.folder, state.plan, steps, state, check, fresh=False)
    return list(publish(run))
