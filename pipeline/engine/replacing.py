"""Refuse to replace committed parts that were made with other settings, unless the user agreed."""

from collections.abc import Sequence

from pipeline.engine.opened import Run
from pipeline.errors import UserError
from pipeline.manifest.fingerprint import differences
from pipeline.manifest.lockfile import read_lock


def refuse_to_replace(run: Run, parts: Sequence[int], consent: str | None) -> None:
    """Refuse a command that would replace committed parts of expensive stages.

    Args:
        run: the open run.
        parts: the parts that the command covers.
        consent: the step that the user asked to run again, or None.

    Raises:
        UserError: a setting that they depend on has changed, or they belong to another plan.
    """
    for step in run.steps:
        if step.light or step.name == consent:
            continue
        units = step.units(parts)
        for unit in units:
            error = run.state.damaged.get((step.name, unit))
            if error is not None and error.other_run:
                raise UserError(
                    f"{error}. Running would replace it: move it away, use another run name "
                    "(--set name=...), or allow it with --replace"
                )
        changed = [
            footer.fingerprint
            for unit in units
            if (footer := run.state.footer(step, unit)) and footer.fingerprint != step.fingerprint
        ]
        if not changed:
            continue
        known = read_lock(run.folder.lock).get("identities", {})
        old = known.get(changed[0])
        keys = differences(old, run.identities[step.name]) if old else ["(the old settings are not recorded)"]
        raise UserError(
            f"{step.name}: {len(changed)} committed parts of {run.folder.root} "
            "were made with other settings:\n"
            + "".join(f"  {key}\n" for key in keys)
            + "Making them again replaces them and all that follows. Allow it with --replace, keep both "
            "with another run name (--set name=...), or undo the change"
        )
